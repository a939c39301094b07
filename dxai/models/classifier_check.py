"""Check of a classifier that is taken over, on a few images, before anything trains.

Every finding is one line that names the setting which mends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec
from dxai.models.accuracy_check import Finding, check_accuracy
from dxai.models.adapter import Adapted, Undo
from dxai.models.programs import Program

IMAGES = 8
"""Images for the checks of single answers; all of them count for the accuracy."""
LOGITS = 16
"""Most logits whose gradient is computed."""
SAME, SAME_IN_BATCH = 1e-4, 2e-2
"""Largest differences of two answers, as a share of the spread of the logits; in a batch other
kernels may run, and a network may compute in half precision."""
NEAR = 1e-3
"""Distance from 1 at which values still count as probabilities."""
LINEAR = (
    *("alias", "cat", "clone", "div", "expand", "index", "mul", "neg", "permute", "reshape"),
    *("select", "slice", "split", "squeeze", "stack", "tocopy", "unbind", "unsqueeze", "view"),
)
"""Names of steps in autograd's graph that leave logits what they are."""


def check_classifier(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    spec: ClassifierSpec,
    trained: bool,
) -> list[Finding]:
    """Find what is wrong with a network, or with the entry that describes it.

    Parameters
    ----------
    network : nn.Module
        As made from `spec`, in eval mode. It is not changed, nor are the global random numbers.
    images : Tensor
        (B, C, H, W), float32 in [-1, 1]: real images, of all classes if possible.
    labels : Tensor
        (B,), int64 in [0, c).
    class_names : sequence of str
        The c names, in the dataset's order.
    spec : ClassifierSpec
        The entry, for its present settings.
    trained : bool
        Whether the network has its final weights, so that its accuracy can be judged.

    Returns
    -------
    list of Finding
        Empty if nothing is wrong. The accuracy is judged only if nothing else is.
    """
    with torch.random.fork_rng(devices=[]):
        few = spread(len(images), IMAGES)
        findings = [*_function(network, images[few]), *_outputs(network, images[few], spec)]
        if not findings:
            findings += _gradients(network, images[few], class_names, trained)
        if trained and not findings:
            findings += check_accuracy(network, images, labels, class_names, spec)
    return findings


def spread(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` images, evenly spaced; all if there are no more."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


# ------------------------------------------------------------------------------------- answers
@torch.no_grad()
def _function(network: nn.Module, images: Tensor) -> Iterator[Finding]:
    """Check that the logits depend on nothing but the image, and that it stays as it is."""
    given = images.clone()
    logits = network(given)
    if not torch.equal(given, images):
        yield Finding(
            "changes the image that it is given (an operation in place, such as `x -= mean`): "
            "remove that from its forward, and set `mean` and `std`"
        )
        return
    if not logits.isfinite().all():
        yield Finding(
            "returns logits that are not finite"
            " for real images: check `activation`, `value_range`, `mean`, `std` and `weights`"
        )
        return
    centred = logits - logits.mean(1, keepdim=True)
    scale = max(float(centred.abs().max()), 1e-4 * float(logits.abs().max()), 1e-12)
    again = float((network(images.clone()) - logits).abs().max())
    if again > SAME * scale:
        yield Finding(
            f"returns other logits for the same image (they differ by {again:.2g}), so a dropout "
            f"or another random draw is always on: {_remedy(network)}"
        )
        return
    alone = torch.cat([network(image[None].clone()) for image in images])
    apart = float((alone - logits).abs().max())
    if apart > SAME_IN_BATCH * scale:
        yield Finding(
            f"returns other logits for an image alone than in a batch of {len(images)} (they "
            f"differ by {apart:.2g}), so statistics of the batch are in use: {_remedy(network)}"
        )


def _remedy(network: nn.Module) -> str:
    programs = (Program, torch.jit.ScriptModule)
    if any(isinstance(module, programs) for module in network.modules()):
        return "export the network after `network.eval()`, and name that file in `weights`"
    return "make its forward follow `network.eval()`, or name another `arch`"


def _outputs(network: nn.Module, images: Tensor, spec: ClassifierSpec) -> Iterator[Finding]:
    """Check that the network's outputs, before they are adapted, are what the entry says."""
    inputs = images.clone().requires_grad_()
    with torch.enable_grad():
        # A leaf must not be changed in place.
        outputs = (network.outputs if isinstance(network, Adapted) else network)(inputs * 1)
    if spec.activation != "none" and not _undoes(network):
        return  # the activation was a module of its own, and is no longer there
    last = _last_function(outputs)
    values = outputs.detach()
    shares = bool((values >= 0).all() and (values <= 1 + NEAR).all())
    sums = shares and values.shape[1] > 1 and bool(((values.sum(1) - 1).abs() < NEAR).all())
    found = "softmax" if sums else last
    if found == "tanh":
        yield Finding("returns the values of a tanh, not logits: return the values before it")
    elif spec.activation != "none" and not shares:
        low, high = float(values.min()), float(values.max())
        yield Finding(
            f"returns values from {low:.3g} to {high:.3g}, so they are not those of a "
            f"{spec.activation}: set `activation: none`"
        )
    elif found in ("softmax", "sigmoid") and found != spec.activation:
        yield Finding(f"returns the values of a {found}, not logits: set `activation: {found}`")


def _undoes(network: nn.Module) -> bool:
    """Whether the activation of the entry is undone by its inverse."""
    steps = network.after.modules() if isinstance(network, Adapted) else ()
    return any(isinstance(step, Undo) for step in steps)


def _last_function(logits: Tensor) -> str:
    """Return the activation from which all logits come through linear steps, or ""."""
    waiting, ends = [logits.grad_fn], set()
    while waiting:
        function: Any = waiting.pop()
        name = "" if function is None else function.name().removesuffix("Backward0").lower()
        if name in LINEAR:
            waiting += [other for other, _ in function.next_functions]
        else:
            ends.add(name)
    return ends.pop() if len(ends) == 1 else ""


def _gradients(
    network: nn.Module, images: Tensor, class_names: Sequence[str], trained: bool
) -> Iterator[Finding]:
    """Check that each logit that varies has a gradient by the image, and that it is not zero."""
    with torch.no_grad():
        logits = network(images.clone())
    constant = set((logits == logits[:1]).all(0).nonzero().flatten().tolist())
    found = _gradient_sizes(network, images, len(class_names))
    if not trained and 0.0 in found.values():  # a last layer that starts at zero passes none on
        with _shaken(network):
            found = _gradient_sizes(network, images, len(class_names))
    for lacking, what, cause in (
        (None, "no gradient by the image", "`torch.no_grad` and `detach`"),
        (0.0, "a gradient of zero", "rounding, and activations that are always saturated,"),
    ):
        which = [k for k, size in found.items() if size == lacking]
        every = len(which) == len(found)
        names = [class_names[k] for k in which if every or k not in constant]
        if names:
            whose = "every logit has" if every else f"the logits of {', '.join(names)} have"
            yield Finding(
                f"{whose} {what}, so nothing can be explained: remove {cause} from its forward, "
                "or name another `arch` (weights are frozen by `requires_grad_(False)`)"
            )


def _gradient_sizes(network: nn.Module, images: Tensor, classes: int) -> dict[int, float | None]:
    """Return the largest gradient of each of some logits by the images; None without one."""
    inputs = images[:2].clone().requires_grad_()
    found: dict[int, float | None] = {}
    with torch.enable_grad():
        logits = network(inputs * 1)
        for k in spread(classes, LOGITS):
            gradient = None
            if logits.requires_grad:
                total = logits[:, k].sum()
                (gradient,) = torch.autograd.grad(
                    total, inputs, retain_graph=True, allow_unused=True
                )
            found[k] = None if gradient is None else float(gradient.abs().max())
    return found


@contextlib.contextmanager
def _shaken(network: nn.Module) -> Iterator[None]:
    """Add small random numbers to the weights while the block runs."""
    before = [parameter.detach().clone() for parameter in network.parameters()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), before, strict=True):
                parameter.copy_(value)
