"""Cascading randomisation: what looks at the weights changes, and what does not, stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dxai.explain.controls import RandomMap
from dxai.metrics.similarity import rank_correlation, structural_similarity
from dxai.models.randomised import cascade, drawn_layers
from dxai.types import Unsupported

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.tensor([0, 1, 2, 0])


def small() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)
    ).eval()


def gradient(network: nn.Module) -> Tensor:
    images = IMAGES.clone().requires_grad_()
    network(images).gather(1, LABELS[:, None]).sum().backward()
    assert images.grad is not None
    return images.grad


def test_layers_come_in_the_reverse_of_their_order() -> None:
    assert drawn_layers(small(), IMAGES[:1]) == ["4", "1", "0"]


def test_each_stage_draws_more_layers_and_leaves_the_network_alone() -> None:
    network = small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = dict(cascade(network, ["4", "1", "0"], 3, seed=0))
    assert list(found) == [1, 2, 3]
    for done, changed in found.items():
        weights = {"4.weight": 1, "0.weight": 3}
        for name, stage in weights.items():
            assert torch.equal(changed.state_dict()[name], before[name]) == (done < stage)
    again = dict(cascade(network, ["4", "1", "0"], 1, seed=0))
    assert list(again) == [3]
    assert torch.equal(again[3](IMAGES), found[3](IMAGES))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_linear_network_has_another_gradient_and_a_random_map_the_same() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).eval()
    ((_, changed),) = cascade(network, drawn_layers(network, IMAGES[:1]), 4, seed=0)
    maps = [gradient(n).numpy() for n in (network, changed)]
    assert abs(rank_correlation(*maps)).max() < 0.2
    assert structural_similarity(*maps).max() < 0.8
    index = torch.arange(4)
    blind = [RandomMap(n, {}, 0).attribute(IMAGES, LABELS, index) for n in (network, changed)]
    blind = [found.numpy() for found in blind]
    assert rank_correlation(*blind) == pytest.approx([1] * 4)
    assert structural_similarity(*blind) == pytest.approx([1] * 4)


def test_weights_without_a_way_to_draw_them_are_named() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.gain * x.mean((2, 3))

    with pytest.raises(Unsupported, match="gain"):
        drawn_layers(Own(), IMAGES[:1])
