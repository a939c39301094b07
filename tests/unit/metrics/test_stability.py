"""Agreement of maps, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from dxai.metrics.stability import deviation, pixel_deviation


def test_two_maps_that_differ_by_a_constant() -> None:
    rng = np.random.default_rng(0)
    one = rng.random((3, 1, 4, 4))
    std, _ = deviation(np.stack([one, one + 0.6]))
    np.testing.assert_allclose(std, 0.3)  # ddof 0: half of the difference


def test_three_seeds_by_hand() -> None:
    maps = np.zeros((3, 1, 1, 1, 2))
    maps[:, 0, 0, 0, 0] = 0, 3, 6  # deviation sqrt(6), and 0 beside it; the range is 6
    std, normalised = deviation(maps)
    assert std == pytest.approx(np.sqrt(6) / 2)
    assert normalised == pytest.approx(np.sqrt(6) / 12)


def test_the_range_is_of_one_image_over_all_of_its_maps_and_channels() -> None:
    maps = np.zeros((2, 2, 3, 4, 4))
    maps[1, 0, 0], maps[1, 1, 0] = 1, 10
    maps[0, 0, 1, 0, 0] = -3
    std, normalised = deviation(maps)
    first = (0.5 * 16 + 1.5) / 48  # one channel differs by 1, one pixel by 3
    np.testing.assert_allclose(std, [first, 5 / 3])
    np.testing.assert_allclose(normalised, [first / 4, 1 / 6])


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_only_what_is_not_normalised_depends_on_the_scale(scale: float) -> None:
    maps = np.random.default_rng(1).normal(size=(3, 5, 1, 6, 6)).astype(np.float32)
    std, normalised = deviation(maps)
    scaled, same = deviation(scale * maps)
    np.testing.assert_allclose(scaled, scale * std, rtol=1e-5)
    np.testing.assert_allclose(same, normalised, rtol=1e-5)


def test_maps_that_agree_deviate_by_nothing() -> None:
    one = np.random.default_rng(2).random((1, 4, 1, 6, 6))
    std, normalised = deviation(np.repeat(one, 3, axis=0))
    np.testing.assert_allclose([*std, *normalised], 0, atol=1e-15)


def test_a_constant_has_no_range() -> None:
    maps = np.zeros((3, 2, 1, 4, 4))
    maps[:, 0] = 0.7
    maps[1, 1, 0, 0, 0] = 1
    std, normalised = deviation(maps)
    assert np.isnan(normalised).tolist() == [True, False]
    assert std[0] == pytest.approx(0)


def test_each_pixel_is_numpys_deviation() -> None:
    maps = np.random.default_rng(3).normal(size=(4, 2, 3, 5, 5))
    expected = np.sqrt(((maps - maps.mean(0)) ** 2).mean(0))
    np.testing.assert_allclose(pixel_deviation(maps), expected)
