"""The naive optimisation against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dxai.explain.naive import divergence_from_uniform
from dxai.explain.registry import build_explainer

DESCENT = {"iterations": 2000, "lr": 0.1, "tolerance": 1e-6}


def test_divergence_closed_forms() -> None:
    logits = torch.tensor([[2.0, 2.0, 2.0], [math.log(2.0), 0.0, 0.0]])
    # p = (1/2, 1/4, 1/4): sum 1/3 (log 1/3 - log p_i)
    expected = -math.log(3) + (math.log(2) + 2 * math.log(4)) / 3
    torch.testing.assert_close(
        divergence_from_uniform(logits), torch.tensor([0.0, expected]), rtol=1e-5, atol=1e-6
    )


def test_two_linear_classes_are_projected_onto_their_boundary(linear, images: Tensor) -> None:
    """Every gradient is along w = w_0 - w_1, so that x moves by (w x + b) / |w|^2 w."""
    weight = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) / 8
    bias = torch.tensor([0.3, -0.2])
    explainer = build_explainer("naive", linear(weight, bias), DESCENT)
    part = explainer.attribute(images, torch.zeros(8, dtype=torch.long))
    w = weight[0] - weight[1]
    excess = (images * w).sum((1, 2, 3)) + bias[0] - bias[1]
    expected = (excess / (w**2).sum())[:, None, None, None] * w
    torch.testing.assert_close(part, expected, rtol=0, atol=2e-3)


def test_reaches_the_tolerance_and_takes_from_the_image(linear, images: Tensor) -> None:
    weight = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) / 8
    classifier = linear(weight)
    part = build_explainer("naive", classifier, DESCENT).attribute(images, torch.zeros(8).long())
    assert divergence_from_uniform(classifier(images)).min() > 1e-3
    assert divergence_from_uniform(classifier(images - part)).max() < 1e-6


def test_an_image_that_is_done_stays_while_others_go_on(linear, images: Tensor) -> None:
    weight = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) / 8
    batch = torch.cat([torch.zeros_like(images[:1]), images[:2]])
    part = build_explainer("naive", linear(weight), DESCENT).attribute(batch, torch.zeros(3).long())
    assert torch.equal(part[0], torch.zeros_like(part[0]))
    assert part[1:].abs().flatten(1).amax(1).min() > 0


def test_no_iteration_no_part(linear, images: Tensor) -> None:
    explainer = build_explainer("naive", linear(torch.rand(2, 1, 16, 16)), {"iterations": 0})
    assert not explainer.attribute(images, torch.zeros(8).long()).any()
    with pytest.raises(ValueError, match="iterations is -1"):
        build_explainer("naive", linear(torch.rand(2, 1, 16, 16)), {"iterations": -1})
