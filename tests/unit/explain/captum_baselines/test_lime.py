"""LIME finds what decides, and superpixels are what they should be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dxai.explain.captum_baselines.lime import segment
from dxai.explain.registry import build_explainer


def quadrants(channels: int) -> Tensor:
    """An image (C, 16, 16) of four flat quadrants."""
    levels = torch.tensor([[-0.9, -0.3], [0.3, 0.9]])
    image = levels.repeat_interleave(8, 0).repeat_interleave(8, 1)
    tints = torch.linspace(0.5, 1.0, channels)
    return image * tints[:, None, None]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("decisive", range(4))
def test_recovers_the_decisive_quadrant(linear, channels: int, decisive: int) -> None:
    """The logit is 4 times the image's sum over one quadrant, 0 elsewhere."""
    row, column = divmod(decisive, 2)
    mask = torch.zeros(16, 16)
    mask[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    image = quadrants(channels)
    weight = torch.stack([torch.zeros_like(image), 4 * mask.expand_as(image)])
    explainer = build_explainer("lime", linear(weight), {"samples": 200, "segments": 4})
    map_ = explainer.attribute(image[None], torch.tensor([1]))
    assert map_.shape == (1, 1, 16, 16)
    effect = float((4 * mask * image).sum())
    inside, outside = map_[0, 0][mask == 1], map_[0, 0][mask == 0]
    torch.testing.assert_close(inside, torch.full_like(inside, effect), rtol=0.1, atol=0)
    assert outside.abs().max() < 0.05 * abs(effect)


@pytest.mark.parametrize("channels", [1, 3])
def test_superpixels_follow_edges(channels: int) -> None:
    labels = segment(quadrants(channels), 4, 0.1)
    assert labels.shape == (16, 16) and labels.dtype == torch.int64
    assert sorted(labels.unique().tolist()) == [0, 1, 2, 3]
    for rows in (slice(0, 8), slice(8, 16)):
        for columns in (slice(0, 8), slice(8, 16)):
            assert len(labels[rows, columns].unique()) == 1


def test_superpixels_of_a_flat_image_are_a_grid() -> None:
    labels = segment(torch.zeros(1, 32, 32), 16, 0.1)
    count = len(labels.unique())
    assert 8 <= count <= 24
    assert labels.min() == 0 and labels.max() == count - 1


def test_constant_within_superpixels(images: Tensor, target: Tensor, classifier) -> None:
    settings = {"samples": 30, "segments": 6}
    map_ = build_explainer("lime", classifier, settings).attribute(images[:2], target[:2])
    for image, values in zip(images, map_, strict=False):
        labels = segment(image, 6, 0.1)
        for label in labels.unique():
            assert len(values[0][labels == label].unique()) == 1
