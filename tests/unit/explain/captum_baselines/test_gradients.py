"""Path methods against their axioms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dxai.explain.captum_baselines.gradients import keyed_globals
from dxai.explain.registry import build_explainer


@pytest.mark.parametrize("method", ["ig", "gradient_shap"])
def test_linear_classifier_gives_weight_times_image(
    method: str, linear, images: Tensor, target: Tensor
) -> None:
    weight = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    map_ = build_explainer(method, linear(weight, torch.ones(3))).attribute(images, target)
    torch.testing.assert_close(map_, weight[target] * images)


def test_integrated_gradients_are_complete(
    classifier: nn.Module, images: Tensor, target: Tensor
) -> None:
    """Their sum is f(x) - f(0) (Sundararajan et al. 2017, Proposition 1)."""
    map_ = build_explainer("ig", classifier, {"steps": 400}).attribute(images, target)
    with torch.no_grad():
        change = classifier(images) - classifier(torch.zeros_like(images))
    expected = change.gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(map_.sum((1, 2, 3)), expected, rtol=5e-3, atol=1e-4)


def test_gradient_shap_tends_to_integrated_gradients(
    build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    """Without noise both are the mean gradient on the path, at random and at chosen points."""
    classifier = build("simple")
    exact = build_explainer("ig", classifier, {"steps": 100}).attribute(images, target)
    errors = [
        (build_explainer("gradient_shap", classifier, {"samples": n}).attribute(images, target))
        .sub(exact)
        .norm()
        for n in (5, 400)
    ]
    assert errors[1] < 0.1 * exact.norm()
    assert errors[1] < errors[0] / 3


def test_gradient_shap_noise_is_used(
    build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    maps = [
        build_explainer("gradient_shap", build("simple"), {"stdev": s}).attribute(images, target)
        for s in (0.0, 0.2)
    ]
    assert not torch.allclose(*maps)


def test_keyed_globals_puts_generators_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), keyed_globals(0, "test", 0, 0, torch.device("cpu")):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
