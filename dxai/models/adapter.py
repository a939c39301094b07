"""The adapter that makes a function from images in [-1, 1] to logits of a user's network.

Its steps are modules that torch.fx can trace and that have a rule in LRP: linear layers whose
weights are constants. They hold no parameters and add nothing to a state dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec
from dxai.models.network_output import described, find_field, pick
from dxai.models.programs import Program

SMALLEST = torch.finfo(torch.float32).tiny
"""Probability below which the logarithm is cut off."""
LARGEST = 1 - torch.finfo(torch.float32).eps / 2
"""Largest float32 below 1: the logit of a saturated sigmoid is 16.6."""
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "softmax": nn.Softmax,
    "sigmoid": nn.Sigmoid,
}


class Adapted(nn.Module):
    """A user's network between the steps that its entry in `classifiers` asks for.

    Parameters
    ----------
    network : nn.Module
        The user's network.
    before : nn.Module
        Images (B, C, S, S) in [-1, 1] to what the network takes.
    field : str, int or None
        Of the network's result; see `pick`.
    after : nn.Module
        The network's outputs (B, n) to logits (B, c) in the dataset's order.
    dtype : torch.dtype
        In which the network calculates.
    """

    def __init__(
        self,
        network: nn.Module,
        before: nn.Module,
        field: str | int | None,
        after: nn.Module,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.before, self.network, self.after = before, network, after
        self.field, self.dtype = field, dtype

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, S, S) in [-1, 1] to logits (B, c), float32."""
        return self.after(self.outputs(x))

    def outputs(self, x: Tensor) -> Tensor:
        """Images to the network's own outputs (B, n), float32."""
        x = self.before(x)
        if self.dtype != torch.float32:
            return pick(self.network(x.to(self.dtype)), self.field).float()
        return pick(self.network(x), self.field)


class Resize(nn.Module):
    """Bilinear resizing of square images, smoothed where they shrink.

    A product with two matrices, which is exact and whose gradient, unlike that of
    `F.interpolate`, is deterministic on a GPU.
    """

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        rows = F.interpolate(
            torch.eye(old)[None, None], (new, old), mode="bilinear", antialias=new < old
        )
        self.rows = constant(nn.Linear(old, new, bias=False), rows[0, 0])
        self.columns = constant(nn.Linear(old, new, bias=False), rows[0, 0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, old, old) to (B, C, new, new)."""
        return self.rows(self.columns(x).transpose(2, 3)).transpose(2, 3)


class Undo(nn.Module):
    """Logits from the probabilities of a softmax or of sigmoids.

    Those of a softmax are known up to a constant, which makes their mean 0: without it the logit of
    a class that the network is sure of would be 0 with a gradient of 0.
    """

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, p: Tensor) -> Tensor:
        """Probabilities (B, n) to logits (B, n)."""
        if self.activation == "sigmoid":
            p = p.clamp(SMALLEST, LARGEST)
            return torch.log(p) - torch.log1p(-p)
        logits = torch.log(p.clamp_min(SMALLEST))
        return logits - logits.mean(1, keepdim=True)


class Flat(nn.Module):
    """Outputs (B,), or (B, n, 1, 1) of a fully convolutional network, to (B, n)."""

    def forward(self, y: Tensor) -> Tensor:
        return y.flatten(1) if y.ndim > 1 else y.unsqueeze(1)


class Float(nn.Module):
    """Outputs of any precision to float32."""

    def forward(self, y: Tensor) -> Tensor:
        return y.float()


def constant(layer: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    """Replace a layer's parameters by values that are neither trained nor saved."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            delattr(layer, name)
            layer.register_buffer(name, value, persistent=False)
    return layer


def adapt(
    network: nn.Module,
    spec: ClassifierSpec,
    channels: int,
    class_names: Sequence[str],
    image_size: int,
) -> nn.Module:
    """Adapt a network to images in [-1, 1] and to the dataset's classes.

    The network itself is returned if there is nothing to adapt. Raises `ValueError`, which names
    the setting, if it does not take the images or does not return the outputs of these classes.
    """
    before = _before(spec, channels, image_size)
    dtype = _dtype(network)
    taken = before(torch.zeros(1, channels, image_size, image_size)).to(dtype)
    result = _run(network, taken, spec)
    names = list(spec.class_names or class_names)
    expected = max(spec.outputs) + 1 if spec.outputs else len(names)
    field = spec.field if spec.field is not None else find_field(result, expected)
    try:
        outputs = pick(result, field)
    except (KeyError, IndexError, TypeError, AttributeError):
        outputs = None
    if not isinstance(outputs, Tensor) or (field is not None and isinstance(result, Tensor)):
        raise ValueError(f"field is {field!r}; the network returns {described(result)}")
    steps: list[nn.Module] = []
    if outputs.shape == (1,) or (outputs.ndim == 4 and outputs.shape[2:] == (1, 1)):
        steps.append(Flat())
        outputs = outputs.reshape(1, -1)
    selection = _selection(outputs, spec, names, class_names)
    kind = ACTIVATIONS.get(spec.activation)
    changed = kind is not None and _removed(network, taken, field, kind)
    if kind is not None and not changed:
        steps.append(Undo(spec.activation))
    if selection is not None:
        steps.append(selection)
    if not [*before, *steps] and field is None and {dtype, outputs.dtype} == {torch.float32}:
        return network
    if outputs.dtype != torch.float32 and dtype == torch.float32:
        steps.insert(0, Float())
    return Adapted(network, before, field, nn.Sequential(*steps), dtype).eval()


def _before(spec: ClassifierSpec, channels: int, image_size: int) -> nn.Sequential:
    """Return the steps from images in [-1, 1] to what the network takes."""
    steps: list[nn.Module] = []
    if spec.size is not None and spec.size != image_size:
        steps.append(Resize(image_size, spec.size))
    low, high = spec.expected_range
    mean, std = (
        _per_channel(values, channels, name, default)
        for name, values, default in (("mean", spec.mean, 0.0), ("std", spec.std, 1.0))
    )
    if (low, high) != (-1.0, 1.0) or spec.mean is not None or spec.std is not None:
        half = (high - low) / 2
        scale, shift = half / std, (low + half - mean) / std
        layer = nn.Conv2d(channels, channels, 1, groups=channels)
        steps.append(constant(layer, scale.float().reshape(-1, 1, 1, 1), shift.float()))
    return nn.Sequential(*steps)


def _per_channel(values: list[float] | None, channels: int, name: str, default: float) -> Tensor:
    values = [default] if values is None else values
    if len(values) not in (1, channels):
        raise ValueError(
            f"{name} has {len(values)} values; the images have {channels} channel(s): "
            f"give 1 or {channels}"
        )
    return torch.tensor(values, dtype=torch.float64).expand(channels)


def _dtype(network: nn.Module) -> torch.dtype:
    """Return the type in which a network calculates, that of its first weights."""
    known = getattr(network, "dtype", None)
    if isinstance(known, torch.dtype):
        return known
    found = (p.dtype for p in network.parameters() if p.is_floating_point())
    return next(found, torch.float32)


def _run(network: nn.Module, taken: Tensor, spec: ClassifierSpec) -> Any:
    """Run a network on one image."""
    try:
        with torch.no_grad():
            return network(taken)
    except Exception as error:  # a user's code may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        if isinstance(error, ImportError):
            name = type(error).__name__
            raise ValueError(f"its forward fails: {name}: {reason[-1]}") from None
        shape, hint = tuple(taken.shape), ""
        fixed = network.image_shape if isinstance(network, Program) else None
        if fixed is not None and fixed != shape[1:]:
            hint = f"; the program takes images of shape {fixed}"
            if fixed[0] == shape[1] and fixed[1] == fixed[2]:
                hint += f": set size: {fixed[1]}"
        elif "channel" in reason[-1]:
            hint = f"; the setting channels of the dataset is {shape[1]}"
        elif spec.size is None:
            hint = "; if it takes images of one size only, set size"
        raise ValueError(f"refuses an image of shape {shape}: {reason[-1]}{hint}") from None


def _selection(
    outputs: Tensor, spec: ClassifierSpec, names: Sequence[str], class_names: Sequence[str]
) -> nn.Module | None:
    """Return the layer from a network's outputs to the dataset's classes, if one is needed."""
    if outputs.ndim != 2 or len(outputs) != 1:
        raise ValueError(
            f"returns {tuple(outputs.shape)} for one image; it must return logits of shape "
            f"(1, {len(class_names)})"
        )
    count, classes = outputs.shape[1], len(class_names)
    if missing := [name for name in class_names if name not in names]:
        raise ValueError(
            f"class_names lacks {', '.join(missing)}; the dataset has {', '.join(class_names)}, "
            f"the entry {', '.join(names)}"
        )
    if spec.outputs is None and count != len(names):
        owner = "class_names" if spec.class_names else "the dataset"
        few = ", ".join(names[:5]) + (", .." if len(names) > 5 else "")
        raise ValueError(
            f"returns {count} outputs for one image; {owner} has {len(names)} classes ({few}): "
            + _how(count, classes)
        )
    indices = list(range(count)) if spec.outputs is None else spec.outputs
    if max(indices) >= count:
        raise ValueError(f"outputs is {spec.outputs}; the network returns {count} outputs")
    if len(indices) == 1 and len(names) == classes == 2:
        weight = torch.zeros(2, count)
        weight[:, indices[0]] = torch.tensor([names.index(name) - 0.5 for name in class_names])
        return constant(nn.Linear(count, 2, bias=False), weight)
    if len(indices) != len(names):
        raise ValueError(
            f"outputs has {len(indices)} indices; it must have one for each of the {len(names)} "
            f"classes {', '.join(names)}"
        )
    order = [indices[names.index(name)] for name in class_names]
    if order == list(range(count)):
        return None
    return constant(nn.Linear(count, classes, bias=False), torch.eye(count)[order])


def _how(count: int, classes: int) -> str:
    if count == 1 and classes == 2:
        return "a single logit of the second class is taken with outputs: [0]"
    if count > classes:
        return "set outputs to the index of each class, or class_names to the network's classes"
    return "it cannot tell them apart"


def _removed(
    network: nn.Module, taken: Tensor, field: str | int | None, kind: type[nn.Module]
) -> bool:
    """Replace the module of this kind that comes last by an identity, if there is one.

    This is exact, and leaves a network that LRP has rules for. Nothing is replaced if the outputs
    stay the same: the network reaches the module in another way than by its names.
    """
    seen: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, y: seen.append((module, y)))
        for name, module in network.named_modules()
        if name and isinstance(module, kind)
    ]
    with torch.no_grad():
        outputs = pick(network(taken), field)
    for hook in hooks:
        hook.remove()
    last = [module for module, y in seen if y is outputs]
    if len(last) != 1 or [module for module, _ in seen].count(last[0]) > 1:
        return False
    every = network.named_modules(remove_duplicate=False)
    names = [name for name, module in every if module is last[0]]
    for name in names:
        network.set_submodule(name, nn.Identity())
    with torch.no_grad():
        if not torch.equal(pick(network(taken), field), outputs):
            return True
    for name in names:
        network.set_submodule(name, last[0])
    return False
