"""Random changes of training images, against SciPy and closed forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from dxai.training import augment
from dxai.utils import keyed_random

CHANGES: dict[str, tuple[Callable[..., Tensor], float]] = {
    "crop": (augment.crop, 0.6),
    "jitter": (augment.jitter, 0.4),
    "blur": (augment.blur, 1.0),
    "contrast": (augment.lower_contrast, 0.5),
    "noise": (augment.add_noise, 0.3),
}
SHARES = (range(3), range(3, 8))
"""Positions of a batch that two workers share."""
NONE = {"crop": 1.0}
"""The strength at which nothing changes, where it is not 0."""


def images(count: int = 8, channels: int = 3, side: int = 24) -> Tensor:
    return keyed_random.uniform(0, "images", 0, range(count), (channels, side, side)) * 2 - 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_depends_on_the_index_in_the_batch_alone(name: str) -> None:
    change, strength = CHANGES[name]
    x = images()
    whole = change(x, strength, 3, 5)
    halves = [change(x[part.start : part.stop], strength, 3, 5, part) for part in SHARES]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.allclose(whole, x)
    assert not torch.equal(whole, change(x, strength, 3, 6))


@pytest.mark.parametrize("name", CHANGES)
def test_no_strength_changes_nothing(name: str) -> None:
    x = images()
    assert CHANGES[name][0](x, NONE.get(name, 0.0), 0, 0) is x


@pytest.mark.parametrize("name", ["crop", "jitter"])
def test_the_range_is_kept(name: str) -> None:
    change, strength = CHANGES[name]
    assert change(images(64), strength, 0, 0).abs().max() <= 1


def test_a_crop_of_a_slope_is_a_slope_as_steep_as_it_is_small() -> None:
    """Values at the edges of the crop are those of the slope there, inside of the image."""
    slope = torch.linspace(-1, 1, 33).expand(200, 1, 33, 33)
    cropped = augment.crop(slope, 0.5, 0, 0)[:, 0, 16, 1:-1]
    steps = cropped.diff(dim=1) * 16  # of the image's own slope
    assert (steps[:, :1] - steps).abs().max() < 1e-4
    assert 0.5 <= steps[:, 0].min() < 0.52 and 0.98 < steps[:, 0].max() <= 1.0
    assert cropped.min() >= -1 and cropped.max() <= 1
    assert cropped[:, 0].min() < -0.9 and cropped[:, -1].max() > 0.9  # left and right ones


def test_a_crop_keeps_the_shape_of_what_is_in_it() -> None:
    """Across and down, the scale is the same."""
    across = torch.linspace(-1, 1, 33).expand(8, 1, 33, 33)
    both = torch.cat([across, across.transpose(2, 3)], 1)
    right, down = augment.crop(both, 0.5, 0, 0).unbind(1)
    torch.testing.assert_close(right[:, 16, 1:-1].diff(dim=1), down[:, 1:-1, 16].diff(dim=1))


def test_jitter_of_a_gray_image_moves_its_brightness_only() -> None:
    gray = torch.zeros(500, 3, 4, 4)
    moved = augment.jitter(gray, 0.3, 0, 0)
    assert torch.equal(moved, moved[:, :1, :1, :1].expand_as(moved))
    assert -0.3 <= moved.min() < -0.29 and 0.29 < moved.max() <= 0.3


def test_jitter_scales_contrast_and_saturation_within_its_bounds() -> None:
    """Half of the pixels are lighter than gray, and red is above blue by as much everywhere."""
    light = torch.tensor([-0.1, 0.1]).repeat(8)[:, None].expand(16, 16)
    colour = torch.tensor([0.05, 0.0, -0.05])[:, None, None]
    found = augment.jitter((light + colour).expand(500, 3, 16, 16), 0.5, 0, 0)
    contrast = (found[:, 1, 1, 0] - found[:, 1, 0, 0]) / 0.2
    saturation = (found[:, 0, 0, 0] - found[:, 2, 0, 0]) / 0.1 / contrast
    for factor in (contrast, saturation):
        assert factor.min() + 1e-4 >= 0.5 and factor.min() < 0.52
        assert 1.48 < factor.max() <= 1.5 + 1e-4


def test_blur_is_a_gaussian_filter_of_half_of_the_images() -> None:
    x = images(40, 1)
    blurred = augment.blur(x, 1.5, 0, 0)
    changed = [i for i in range(40) if not torch.equal(blurred[i], x[i])]
    assert 12 <= len(changed) <= 28
    drawn = keyed_random.uniform(0, "blur", 0, range(40), (2,))
    for i in changed[:5]:
        sigma = 1.5 * float(drawn[i, 0])
        wanted = gaussian_filter(x[i, 0].numpy(), sigma, mode="mirror", radius=3)
        np.testing.assert_allclose(blurred[i, 0].numpy(), wanted, atol=1e-5)


def test_flips_mirror_about_half_of_the_images() -> None:
    x = torch.arange(4.0).expand(400, 1, 2, 4)
    flipped = augment.flip(x, seed=0, step=1)
    mirrored = (flipped[:, 0, 0, 0] == 3).float()
    assert 0.4 < mirrored.mean() < 0.6
    torch.testing.assert_close(flipped[mirrored.bool()][0], x[0].flip(-1))


def test_noise_has_the_deviation_it_says() -> None:
    noisy = augment.add_noise(torch.zeros(500, 1, 16, 16), 0.6, seed=0, step=0)
    deviations = noisy.std((1, 2, 3))
    assert deviations.max() < 0.72
    assert deviations.mean() == pytest.approx(0.3, rel=0.1)


def test_contrast_is_lowered_by_at_most_its_strength() -> None:
    scaled = augment.lower_contrast(torch.ones(500, 1, 2, 2), 0.6, seed=0, step=0)
    assert (scaled.std((1, 2, 3)) == 0).all()
    assert scaled.min() == pytest.approx(0.4, abs=0.02)
    assert scaled.mean() == pytest.approx(0.7, abs=0.02)
