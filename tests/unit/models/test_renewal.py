"""A network that brings its weights gets new ones, or an error; never the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from dxai.models.renewal import brought, renew


class Position(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(1, 4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.embedding


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self.inner(x, x, x)[0].mean(1)


def convolutional(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *layers, nn.Flatten(), nn.LazyLinear(2)
    )


def pretrained(make: Callable[[], nn.Module]) -> nn.Module:
    """The same weights at each call, like a factory that reads a file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make()
        network(torch.zeros(1, 3, 4, 4))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight)
                module.running_mean.normal_()
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "make",
    [
        convolutional,
        lambda: convolutional(weight_norm(nn.Conv2d(4, 4, 1))),
        lambda: convolutional(spectral_norm(nn.Conv2d(4, 4, 1))),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Attention(), nn.Linear(4, 2)),
    ],
)
def test_every_weight_that_is_brought_is_drawn_anew(make: Callable[[], nn.Module]) -> None:
    network, other = pretrained(make), pretrained(make)
    names = brought(network, other)
    assert {name for name, p in network.named_parameters() if p.dim() > 1} <= set(names)
    torch.manual_seed(1)
    renew(network, names)
    assert brought(network, other) == []
    assert not any(p.requires_grad for p in network.parameters())
    again = pretrained(make)
    torch.manual_seed(1)
    renew(again, names)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, again.state_dict()[name], rtol=0, atol=0)
    assert network(torch.rand(2, 3, 4, 4)).isfinite().all()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.eq(0).all()


def test_what_does_not_say_how_it_is_drawn_is_named() -> None:
    network, other = (pretrained(lambda: convolutional(Position())) for _ in range(2))
    with pytest.raises(ValueError, match=r"it brings 3\.embedding, .* set `twin: false`, or"):
        renew(network, brought(network, other))


def test_a_network_that_draws_its_weights_brings_none() -> None:
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)]
    assert brought(*networks) == []
