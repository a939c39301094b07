"""Noise that a classifier stands, against the normal distribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from dxai.metrics import smoothing
from dxai.types import Batch
from tests.unit.metrics.test_scorer import Brightness, batch


def pieces(brightness: float, count: int = 500) -> Iterator[Batch]:
    """Yield images of 4 x 4 equal pixels, half of them bright and half dark."""
    for start in (0, count // 2):
        found = batch([brightness, -brightness] * (count // 4))
        yield replace(found, index=found.index + start)


@pytest.mark.parametrize(("limit", "expected"), [(0.25, 0.2), (0.7, 0.6), (3.0, 1.0), (0.005, 0.0)])
def test_the_deviation_that_keeps_95_percent(limit: float, expected: float) -> None:
    """The mean of 16 pixels has a quarter of their deviation d: Phi(4 v / d) stay right."""
    brightness = limit * 1.645 / 4
    assert smoothing.tolerated(Brightness(), lambda: pieces(brightness), seed=0) == expected


def test_accuracy_counts_only_what_was_right_before() -> None:
    """A network that is right on half of the images keeps that half."""
    images = batch([0.9, 0.9], labels=[1, 0])
    assert smoothing.tolerated(Brightness(), lambda: [images], seed=0) == 1.0


def test_noise_belongs_to_an_image_not_to_its_batch() -> None:
    images = torch.zeros(3, 2, 5, 4)
    whole = smoothing.noise(images, torch.tensor([4, 7, 9]), 0, 1)
    assert whole.shape == images.shape
    assert torch.equal(whole[1:2], smoothing.noise(images[:1], torch.tensor([7]), 0, 1))
    assert not torch.equal(whole, smoothing.noise(images, torch.tensor([4, 7, 9]), 0, 0))
