from __future__ import annotations

import numpy as np
import pytest
import torch

from dxai.evaluate.localisation import correlation, energy_inside


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
