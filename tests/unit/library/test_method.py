from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, Saliency
from torch import Tensor, nn

from dxai.library.method import Method


@pytest.fixture
def network() -> nn.Module:
    """A linear network, whose gradient is its weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_gradient_of_a_linear_network(network: nn.Module, images: Tensor) -> None:
    target = torch.tensor([0, 1, 2, 3, 1])
    method = Method("saliency", Saliency(network).attribute, rows=2, abs=False)
    with torch.inference_mode():
        found = method.attribute(images, target)
    torch.testing.assert_close(found, network[1].weight[target].reshape(5, 3, 8, 8))
    assert not found.requires_grad and method.signs == ("signed", "relu")


def test_draws_are_the_same_in_each_run(network: nn.Module, images: Tensor) -> None:
    target = torch.zeros(5, dtype=torch.int64)
    function = GradientShap(network).attribute
    method = Method("shap", function, baselines=torch.zeros_like(images), stdevs=0.5)
    torch.manual_seed(1)
    np.random.seed(1)
    first = method.attribute(images, target)
    drawn = torch.rand(3)
    second = method.attribute(images, target)
    assert torch.equal(first, second)
    other = Method("shap", function, seed=1, baselines=torch.zeros_like(images), stdevs=0.5)
    assert not torch.equal(first, other.attribute(images, target))
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))  # the user's own draws go on as if nothing had been


@pytest.mark.parametrize(
    ("found", "kind", "expected"),
    [
        (torch.zeros(2, 3, 4, 4), "heatmap", r"found \(2, 3, 4, 4\); expected .*\(2, 1, 8, 8\) or"),
        (torch.zeros(2, 1, 8, 8), "distinct", r"expected a tensor \(2, 3, 8, 8\);"),
        (np.zeros((2, 3, 8, 8)), "heatmap", "found ndarray; expected a tensor"),
        (torch.full((2, 3, 8, 8), torch.nan), "heatmap", "NaN or infinity"),
    ],
)
def test_what_is_no_attribution_is_refused(
    images: Tensor, found: object, kind: str, expected: str
) -> None:
    method = Method("mine", lambda inputs, target: found, kind=kind)
    with pytest.raises(ValueError, match=f"^mine: .*{expected}"):
        method.attribute(images[:2], torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"kind": "map"}, "kind: unknown 'map'; valid are distinct, heatmap"),
        ({"kind": "distinct", "signs": ("relu",)}, "signs: unknown 'relu'; valid are part"),
        ({"rows": 0}, "rows is 0; it must be 1 or more"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_wrong_settings_are_one_line(arguments: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Method("mine", lambda inputs, target: inputs, **arguments)
