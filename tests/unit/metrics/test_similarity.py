"""Similarity of maps, against scikit-image, scipy and constructed pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity as reference

from dxai.metrics.similarity import WINDOW, rank_correlation, structural_similarity

RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=(3, 2, 20, 16)).astype(np.float32) for _ in range(2))


def test_a_map_is_like_itself_whatever_its_scale_and_sign() -> None:
    assert rank_correlation(A, -3 * A) == pytest.approx(np.ones(3))
    assert structural_similarity(A, -3 * A) == pytest.approx(np.ones(3))


def test_independent_maps_are_not_alike() -> None:
    assert np.abs(rank_correlation(A, B)).max() < 0.2
    assert structural_similarity(A, B).max() < 0.75


def test_ranks_against_scipy() -> None:
    sizes = [np.abs(maps).mean(1).reshape(3, -1) for maps in (A, B)]
    expected = [spearmanr(x, y).statistic for x, y in zip(*sizes, strict=True)]
    assert rank_correlation(A, B) == pytest.approx(expected)


def test_ssim_against_scikit_image_away_from_the_border() -> None:
    edge = WINDOW // 2
    for a, b in zip(A, B, strict=True):
        x, y = (np.abs(m).mean(0) / np.abs(m).mean(0).max() for m in (a, b))
        _, whole = reference(
            x, y, win_size=WINDOW, data_range=1.0, use_sample_covariance=False, full=True
        )
        found = structural_similarity(a[None], b[None])[0]
        assert found == pytest.approx(whole.mean(), abs=1e-6)
        assert whole.shape[0] > 2 * edge


def test_a_constant_map_ranks_nothing() -> None:
    flat = np.ones_like(A)
    assert np.isnan(rank_correlation(A, flat)).all()
    assert np.isfinite(structural_similarity(A, flat)).all()
