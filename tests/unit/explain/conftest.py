"""Tiny classifiers with weights that no layer leaves without effect."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dxai.models.classifiers import CLASSIFIERS, build_network

SIZE = 16
CLASSES = 3


def stirred(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give biases and batch statistics, which start at 0 and 1, values of their own; eval mode."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=draw))
            elif value.ndim == 1:
                value.add_(0.2 * torch.randn(value.shape, generator=draw))
    return network.eval()


@pytest.fixture(params=sorted(CLASSIFIERS))
def classifier(request: pytest.FixtureRequest) -> nn.Module:
    """Each built-in classifier, 1 channel, 16 px, 3 classes."""
    torch.manual_seed(5)
    return stirred(build_network(request.param, 1, CLASSES, SIZE, width=4))


@pytest.fixture
def build() -> Callable[[str], nn.Module]:
    """A function that builds one built-in classifier, as in `classifier`."""

    def make(arch: str) -> nn.Module:
        torch.manual_seed(5)
        return stirred(build_network(arch, 1, CLASSES, SIZE, width=4))

    return make


@pytest.fixture
def images() -> Tensor:
    """Eight images (8, 1, 16, 16) in [-1, 1]."""
    return 2 * torch.rand(8, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) - 1


@pytest.fixture
def target() -> Tensor:
    """A class for each of `images`."""
    return torch.arange(8) % CLASSES


class Linear(nn.Module):
    """Logits that are linear in the image: weights (c, C, H, W)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.fc = nn.Linear(weight[0].numel(), len(weight), bias=bias is not None)
        with torch.no_grad():
            self.fc.weight.copy_(weight.flatten(1))
            if bias is not None:
                self.fc.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


@pytest.fixture
def linear() -> type[Linear]:
    """The class of linear classifiers."""
    return Linear
