from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from dxai.metrics.localisation import (
    GroundTruth,
    average_precision,
    correlation,
    energy_inside,
    localise,
    pointing,
)


def test_energy_of_a_constant_is_the_mask_s_share() -> None:
    masks = torch.zeros(2, 1, 4, 4)
    masks[0, :, :2] = 1
    masks[1, :, 0] = 0.5
    found = energy_inside(torch.full((2, 3, 4, 4), -0.3), masks)
    torch.testing.assert_close(found, torch.tensor([0.5, 0.125], dtype=torch.float64))
    torch.testing.assert_close(found, masks.double().mean((1, 2, 3)))


def test_energy_counts_squares() -> None:
    part = torch.zeros(1, 1, 2, 2)
    part[0, 0, 0, 0], part[0, 0, 1, 1] = 3.0, -4.0
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert energy_inside(part, mask).item() == pytest.approx(9 / 25)


def test_nothing_found_scores_nothing() -> None:
    nothing, something = torch.zeros(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    assert energy_inside(nothing, torch.ones(1, 1, 4, 4)).item() == 0
    assert correlation(nothing, something).item() == 0
    assert correlation(something, torch.ones(1, 3, 4, 4)).item() == 0


def test_correlation_is_numpy_s() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 3, 4, 4, generator=rng) for _ in range(2))
    wanted = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x.numpy(), y.numpy(), strict=True)
    ]
    np.testing.assert_allclose(correlation(x, y), wanted, atol=1e-6)
    torch.testing.assert_close(correlation(x, 2 * x + 1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(correlation(x, -x), -torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("levels", [0, 7, 2], ids=["no ties", "some ties", "many ties"])
@pytest.mark.parametrize("channels", [1, 3])
def test_average_precision_is_scikit_learn_s(levels: int, channels: int) -> None:
    rng = torch.Generator().manual_seed(levels)
    heat = torch.randn(6, channels, 8, 8, generator=rng)
    if levels:
        heat = (heat * levels / 3).round()
    inside = torch.rand(6, 1, 8, 8, generator=rng) < 0.3
    expected = [
        average_precision_score(truth.flatten(), values.abs().mean(0).flatten())
        for truth, values in zip(inside.numpy(), heat.double(), strict=True)
    ]
    np.testing.assert_allclose(average_precision(heat, inside), expected, atol=1e-6)


def test_average_precision_at_its_ends() -> None:
    inside = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    inside[:2, :, :2] = True
    heat = inside.float().clone()
    heat[1] = 1  # says nothing: precision is the share of the area
    assert average_precision(heat, inside).tolist() == [1, 0.5, 0]


def test_the_pointing_game_asks_for_the_largest_magnitude() -> None:
    heat = torch.zeros(3, 2, 2, 2)
    heat[0, :, 0, 0] = -4.0  # negative, and inside
    heat[0, :, 1, 1] = 3.0
    heat[1, 0, 1, 1], heat[1, :, 0, 0] = 5.0, 2.0  # the mean over channels is 2.5 outside
    heat[2, 0, 1, 1], heat[2, :, 0, 0] = 3.0, 2.0  # and 1.5 here
    inside = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    inside[:, 0, 0, 0] = True
    assert pointing(heat, inside).tolist() == [1, 0, 1]


def test_what_is_not_known_is_nan_and_nothing_else_is() -> None:
    masks = torch.full((4, 1, 4, 4), torch.nan)
    masks[0], masks[1], masks[2] = 0, 0.4, 0
    masks[0, :, :2] = 1  # a region; the second is too faint for one, the third is empty
    difference = torch.full((4, 1, 4, 4), torch.nan)
    difference[0], difference[1] = 0, torch.arange(16.0).reshape(1, 4, 4)
    part = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = localise(part, part, GroundTruth(masks, difference))
    finite = {name: value.isfinite().tolist() for name, value in found.items()}
    assert finite.pop("correlation") == [False, True, False, False]
    assert len(finite) == 4
    assert all(known == [True, False, False, False] for known in finite.values())
    assert found["mask_area"][0] == 0.5
    expected = np.corrcoef(part[1].flatten(), np.arange(16))[0, 1]
    assert found["correlation"][1] == pytest.approx(expected, abs=1e-6)


def test_a_map_ranks_and_a_part_is_correlated() -> None:
    masks = torch.zeros(1, 1, 4, 4)
    masks[:, :, 0, 0] = 1
    difference = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    found = localise(masks, difference, GroundTruth(masks, difference))
    assert found["pointing"] == found["average_precision"] == found["energy_inside"] == 1
    assert found["correlation"] == pytest.approx(1)
