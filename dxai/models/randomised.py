"""Classifiers with weights drawn anew, from the top layer down.

The model randomisation test (Adebayo et al. 2018, "Sanity checks for saliency maps",
arXiv:1810.03292): what explains a classifier must change with its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from dxai.models.devices import device_of
from dxai.types import Unsupported
from dxai.utils import keyed_random


def drawn_layers(network: nn.Module, image: Tensor) -> list[str]:
    """List the modules with weights of their own that can be drawn, the last to run first.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    image : Tensor
        (1, C, H, W), one input, of any device.

    Raises
    ------
    Unsupported
        If some weights belong to no such module, as in a program of torch.export.
    """
    names = {module: name for name, module in network.named_modules() if _reset(module) is not None}
    covered = {p for module in names for p in module.parameters(recurse=False)}
    left = [name for name, p in network.named_parameters() if p not in covered]
    if left:
        raise Unsupported(f"{left[0]} belongs to no module with `reset_parameters`")
    order: dict[str, None] = {}
    hooks = [m.register_forward_hook(lambda m, *_: order.setdefault(names[m])) for m in names]
    try:
        with torch.no_grad():
            network(image.to(device_of(network)))
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in reversed(order) if any(True for _ in _own(network, name))]


def cascade(
    network: nn.Module, layers: Sequence[str], stages: int, seed: int
) -> Iterator[tuple[int, nn.Module]]:
    """Yield copies of a network in which ever more layers are drawn anew, the last one all.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    layers : sequence of str
        Names of modules in the order in which they are drawn (`drawn_layers`).
    stages : int
        Number of copies, at most; their layers are spread evenly.
    seed : int
        Key of the draws.

    Yields
    ------
    tuple of int and nn.Module
        The number of layers drawn, and a copy in eval mode on the network's device.
    """
    counts = sorted({max(1, round(len(layers) * k / stages)) for k in range(1, stages + 1)})
    device = device_of(network)
    changed = copy.deepcopy(network).cpu()  # the same draws for every device
    for done, name in enumerate(layers, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(keyed_random.torch_seed(seed, f"randomised {name}"))
            reset = _reset(changed.get_submodule(name))
            assert reset is not None
            reset()
        if done in counts:
            yield done, copy.deepcopy(changed).to(device)


def _reset(module: nn.Module) -> Callable[[], None] | None:
    """Return what draws a module's weights as when it was made; None if nothing does."""
    found = getattr(module, "reset_parameters", None)
    return found or getattr(module, "_reset_parameters", None)  # nn.MultiheadAttention


def _own(network: nn.Module, name: str) -> Iterator[Tensor]:
    return network.get_submodule(name).parameters(recurse=False)
