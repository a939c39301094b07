"""The layers that layer-based methods read when the settings name none."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dxai.models.adapter import Adapted
from dxai.models.classifiers import ResNet18, Simple
from dxai.models.discriminator import Discriminator
from dxai.models.feature_maps import Layout, find_layout, main_tensor, with_main_tensor
from dxai.types import Unsupported

Role = Literal["gradcam", "internal_influence"]
ROUNDING = 16
"""A mean of gradients below this many roundings of their size is 0 but for rounding."""
NUDGE = 1e-3
"""Change of an image's values that leaves the map of a network much as it is, unlike rounding."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that was called, and the map in its output.

    Attributes
    ----------
    name : str
        Its name for `network.get_submodule`.
    module : nn.Module
        The layer.
    layout : Layout
        How its output holds the map.
    depth : int
        Number of operations on the longest way from the image to its output.
    map, gradient : Tensor
        (2, K, h, w): the map, and the gradient of the highest logit with respect to it, for an
        image and for nearly the same image.
    share : float
        Sum of the absolute products of both, as a share of the largest one of all layers.
    """

    name: str
    module: nn.Module
    layout: Layout
    depth: int
    map: Tensor
    gradient: Tensor
    share: float

    @property
    def is_convolution(self) -> bool:
        return isinstance(self.module, nn.Conv2d)

    @property
    def is_readable(self) -> bool:
        """Return whether the layer is a convolution, a normalisation or a block of layers."""
        named_norm = "norm" in type(self.module).__name__.lower()
        return self.is_convolution or named_norm or next(self.module.children(), None) is not None

    @property
    def counts(self) -> bool:
        """Return whether the logit depends on the map, and not only on a class token beside it."""
        return bool((self.gradient != 0).any())

    def is_noise(self, role: Role) -> bool:
        """Return whether the mean of the gradient that the method takes is rounding noise.

        A normalisation after the layer subtracts the mean over positions (instance norm) or over
        channels (layer norm), so that the mean of the gradient over them is 0 but for rounding.
        Where all of the gradient is rounding, it is tiny beside that of other layers, or that of
        nearly the same image is another one.
        """
        gradient = self.gradient.float()
        if not (gradient[0].any() and gradient[1].any()):  # inactive for one of them
            return False
        one, other = gradient.mean((2, 3) if role == "gradcam" else 1)
        rounding = min(ROUNDING * torch.finfo(self.map.dtype).eps, 1e-3)
        cancelled = one.abs().mean() < rounding * gradient[0].abs().mean()
        changed = (one - other).abs().mean() > 0.5 * one.abs().mean()
        return self.share < ROUNDING * torch.finfo(torch.float32).eps or bool(cancelled or changed)


def default_layer(network: nn.Module, images: Tensor, role: Role) -> Layer:
    """Choose the layer that a method reads when the settings name none.

    For the built-in networks it is a fixed one. Otherwise it is the deepest convolution with a map
    of more than one row and column, in the order of execution; a shortcut is less deep than what it
    bypasses. Where layers that mix channels follow it (attention, linear layers at each
    position), or a normalisation cancels its map, it is the deepest normalisation or block.

    Parameters
    ----------
    network : nn.Module
        A frozen classifier without in-place activations.
    images : Tensor
        (B, C, H, W), of which the first is run through the network.
    role : {"gradcam", "internal_influence"}
        The method.

    Raises
    ------
    Unsupported
        If no layer has such a map, or all of them are rounding noise.
    """
    if (fixed := built_in_layers(network)) is not None:
        return named_layer(network, images, role, fixed[role])
    layers = read_layers(network, images)
    candidates = _candidates(layers)
    if not candidates:
        raise Unsupported(
            "no layer that the logits depend on has a map of the image (layers of TorchScript and "
            "torch.export programs cannot be read)"
        )
    deepest = candidates[-1]
    if deepest.is_noise(role):
        candidates = _blocks(layers)
    for layer in reversed(candidates):
        if not layer.is_noise(role):
            return layer
    raise Unsupported(f"a normalisation after {deepest.name} leaves rounding noise of its map")


def named_layer(network: nn.Module, images: Tensor, role: Role, name: str) -> Layer:
    """Find the layer `name`; the parameters are those of `default_layer`.

    Raises
    ------
    Unsupported
        If it is not called, its output has no map, the logits do not depend on it, or a
        normalisation cancels its map.
    """
    found = next((layer for layer in read_layers(network, images) if layer.name == name), None)
    if found is None:
        raise Unsupported(
            f"layer {name} has no map of the image: it is not called as a module, the logits do "
            "not depend on it, or its output has no rows and columns"
        )
    if found.is_noise(role):
        raise Unsupported(f"a normalisation after {name} leaves rounding noise of its map")
    return found


def sequential_layers(network: nn.Module, images: Tensor) -> list[str]:
    """Name three consecutive layers (Table 4); none if the network has fewer.

    The parameters are those of `default_layer`.
    """
    if (fixed := built_in_layers(network)) is not None:
        return fixed["sequential"]
    last = _candidates(read_layers(network, images))[-3:]
    return [layer.name for layer in last] if len(last) == 3 else []


def built_in_layers(network: nn.Module) -> dict[str, Any] | None:
    """Return the fixed layers of a built-in network, also inside an adapter; else None."""
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        if type(module) is ResNet18:
            return {
                "gradcam": f"{prefix}layer3.1.conv2",
                "internal_influence": f"{prefix}layer4.0.conv1",
                "sequential": [f"{prefix}{n}" for n in ("layer3.1", "layer4.0", "layer4.1")],
            }
        last = f"{prefix}features.3" if type(module) is Simple else ""
        if type(module) is Discriminator:
            # The last convolutions end at a single pixel; the last block still has 4x4.
            last = f"{prefix}blocks.{len(module.blocks) - 1}.conv2"
        if last:
            return {"gradcam": last, "internal_influence": last, "sequential": []}
    return None


def read_layers(network: nn.Module, images: Tensor) -> list[Layer]:
    """Run an image through a network; return the layers with maps that its logits depend on.

    They are in the order of execution. `images` is (B, C, H, W), of which the first is used.
    """
    image = images[:1].detach()
    images = torch.cat([image, (1 - NUDGE) * image + NUDGE / 2]).requires_grad_()
    called: dict[str, tuple[nn.Module, Layout, Tensor]] = {}
    grids: set[tuple[int, int]] = set()

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            tensor = main_tensor(output)
            if tensor is None or tensor.grad_fn is None:
                return None
            layout = find_layout(module, tensor, images, grids)
            if layout is None:
                return None
            grids.add(layout.grid)
            called.pop(name, None)
            called[name] = (module, layout, tensor)
            # An in-place operation on the tensor itself would change its node in the graph.
            return with_main_tensor(output, tensor.clone())

        return module.register_forward_hook(hook)

    inner = (("network", network.network),) if isinstance(network, Adapted) else ()
    hooks = [
        watch(f"{prefix}.{name}".strip("."), module)
        for prefix, part in inner or (("", network),)
        for name, module in part.named_modules()
        if (prefix or name) and not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        with torch.enable_grad():
            logits = network(images.clone())
            logit = logits[:, logits[0].argmax()].sum()
    finally:
        for hook in hooks:
            hook.remove()
    if logit.grad_fn is None or not called:
        return []
    depths = _depths(logit.grad_fn)
    outputs = [tensor for _, _, tensor in called.values()]
    gradients = torch.autograd.grad(logit, outputs, allow_unused=True)
    used = [
        (named, gradient)
        for named, gradient in zip(called.items(), gradients, strict=True)
        if gradient is not None
    ]
    sizes = [float((t.detach() * g).float().abs().sum()) for (_, (_, _, t)), g in used]
    return [
        Layer(
            name,
            module,
            layout,
            depths[output.grad_fn],
            layout.read(output.detach()),
            layout.read(gradient),
            size / max(sizes) if max(sizes) > 0 else 1.0,
        )
        for ((name, (module, layout, output)), gradient), size in zip(used, sizes, strict=True)
    ]


def _candidates(layers: list[Layer]) -> list[Layer]:
    """Return the convolutions, or the blocks where something that mixes channels follows them."""
    convolutions = {}
    for layer in sorted(layers, key=_deep):
        if layer.is_convolution and layer.counts:
            convolutions[layer.depth] = layer  # one for each depth, not both sides of a shortcut
    mixing = [layer.depth for layer in layers if _mixes(layer.module)]
    if convolutions and max(convolutions) > max(mixing, default=0):
        return list(convolutions.values())
    return _blocks(layers)


def _blocks(layers: list[Layer]) -> list[Layer]:
    """Return the convolutions, normalisations and blocks by depth, the innermost of equal ones."""
    found: list[Layer] = []
    for layer in sorted(layers, key=_deep):
        repeated = any(_same(layer.map, other.map) for other in found)
        if layer.is_readable and layer.counts and not repeated:
            found.append(layer)
    return found


def _deep(layer: Layer) -> tuple[int, int]:
    """Order by depth; of two sides of a block, the larger kernel last."""
    kernel = getattr(layer.module, "kernel_size", (0,))
    return layer.depth, int(torch.tensor(kernel).prod())


def _mixes(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.MultiheadAttention)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _depths(root: Any) -> dict[Any, int]:
    """Return the longest way from a leaf to each node of the graph of `root`."""
    depths: dict[Any, int] = {}
    waiting = [root]
    while waiting:
        node = waiting[-1]
        before = [n for n, _ in node.next_functions if n is not None]
        missing = [n for n in before if n not in depths]
        if missing:
            waiting += missing
        else:
            depths[node] = 1 + max((depths[n] for n in before), default=-1)
            waiting.pop()
    return depths
