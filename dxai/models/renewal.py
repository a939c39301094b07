"""New weights for a network that brings its own, so that its twin can be trained from scratch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


def brought(network: nn.Module, other: nn.Module) -> list[str]:
    """List the parameters that a network brings.

    `other` was built by the same code with other random numbers: what is the same in both, and not
    one value throughout, such as zeros, was not drawn.
    """
    drawn = dict(other.named_parameters())
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.numel() > 1
        and parameter.min() != parameter.max()
        and torch.equal(parameter, drawn[name])
    ]


@torch.no_grad()
def renew(network: nn.Module, names: list[str]) -> None:
    """Draw the weights of a network anew, as its modules do when they are made.

    `names` are those that must change. The drawing uses torch's global random numbers. Raises
    `ValueError`, which names the setting, if the modules of some of them do not say how they are
    drawn.
    """
    parameters = dict(network.named_parameters())
    before = {name: parameters[name].clone() for name in names}
    for module in reversed(list(network.modules())):  # the whole has the last word on its parts
        reset = getattr(module, "reset_parameters", None)
        reset = reset or getattr(module, "_reset_parameters", None)  # nn.MultiheadAttention
        if callable(reset):
            reset()
        if parametrize.is_parametrized(module):
            _renew_parametrised(module)
    same = [name for name in names if torch.equal(parameters[name], before[name])]
    if same:
        more = f" and {len(same) - 1} more" if len(same) > 1 else ""
        raise ValueError(
            f"its twin cannot be trained from new weights: it brings {same[0]}{more}, and the "
            "module has no `reset_parameters`; set `twin: false`, or `twin` to a file of weights"
        )


def _renew_parametrised(module: nn.Module) -> None:
    """Draw the weights from which others are computed; resetting changes only the computed ones."""
    assert isinstance(module.parametrizations, nn.ModuleDict)
    for name in module.parametrizations:
        value: Tensor = getattr(module, name).detach().clone()
        if value.dim() > 1:
            nn.init.kaiming_uniform_(value, a=math.sqrt(5))  # as linear layers and convolutions do
            try:
                setattr(module, name, value)
            except (NotImplementedError, RuntimeError):
                continue  # it stays the same, of which `renew` complains
