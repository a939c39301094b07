import numpy as np
import pytest

from dxai.metrics.curves import (
    Curve,
    area,
    auc_interval,
    interval,
    paired_difference,
    resampled_means,
)

LEVELS = np.linspace(0, 1, 11)


def test_area_of_known_curves():
    assert area(LEVELS, np.ones(11)) == pytest.approx(1)
    assert area(LEVELS, 1 - LEVELS) == pytest.approx(0.5)
    # Relative to accuracy(0): a weak classifier that loses nothing scores 1.
    assert area(LEVELS, np.full(11, 0.6)) == pytest.approx(1)
    energies = np.array([0, 0.01, 0.02, 0.05, 0.1, 0.2])
    assert area(energies, np.full(6, 0.9)) == pytest.approx(1)
    assert area(energies, 1 - energies / 0.2) == pytest.approx(0.5)
    assert np.isnan(area(LEVELS, np.zeros(11)))


def make(rate, seed=0, n=200, per_group=4):
    rng = np.random.default_rng(seed)
    correct = rng.random((n, 11)) > rate * LEVELS
    correct[:, 0] = True
    return Curve(LEVELS, correct, [f"g{i // per_group}" for i in range(n)])


def test_interval_holds_the_area_and_narrows_with_more_images():
    few, many = make(0.5, n=100), make(0.5, n=1600)
    widths = []
    for curve in (few, many):
        low, high = auc_interval(curve, 1000, 0)
        assert low < curve.auc < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_groups_that_agree_widen_the_interval():
    """Copies of an image add no information: 50 images each eight times are worth 50, not 400."""
    base = make(0.5, n=50, per_group=1)
    correct = np.repeat(base.correct, 8, axis=0)
    grouped = Curve(LEVELS, correct, [f"g{i // 8}" for i in range(400)])
    alone = Curve(LEVELS, correct, [f"g{i}" for i in range(400)])

    def width(curve):
        low, high = auc_interval(curve, 2000, 0)
        return high - low

    assert width(grouped) == pytest.approx(width(base), rel=0.15)
    assert width(alone) == pytest.approx(width(grouped) / np.sqrt(8), rel=0.2)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    truth = 1 - 0.5 * 0.5  # accuracy falls linearly from 1 to 0.5
    hits = 0
    for seed in range(60):
        low, high = auc_interval(make(0.5, seed, n=120, per_group=1), 300, seed)
        hits += low <= truth <= high
    assert 50 <= hits <= 60


def test_paired_difference_is_tighter_than_two_intervals():
    ours = make(0.6)
    worse = ours.correct.copy()
    flipped = np.random.default_rng(1).random(worse.shape) < 0.1
    worse |= flipped  # nearly the same images, a little more often still right
    other = Curve(LEVELS, worse, ours.groups)
    difference, low, high = paired_difference([ours], [other], 2000, 0)
    assert difference == pytest.approx(ours.auc - other.auc)
    assert low < difference < high < 0
    a, b = auc_interval(ours, 2000, 0), auc_interval(other, 2000, 0)
    assert a[1] > b[0]  # the intervals themselves overlap


def test_paired_difference_of_a_method_with_itself_is_nothing():
    assert paired_difference([make(0.5)], [make(0.5)], 100, 0) == (0, 0, 0)


def test_seeds_are_averaged():
    first, second, other = make(0.6, 1), make(0.6, 2), make(0.3, 3)
    difference, _, _ = paired_difference([first, second], [other], 100, 0)
    assert difference == pytest.approx((first.auc + second.auc) / 2 - other.auc)


def test_paired_difference_refuses_other_images():
    with pytest.raises(ValueError, match="same images"):
        paired_difference([make(0.5)], [make(0.5, per_group=5)], 10, 0)


def test_interval_is_the_percentiles():
    assert interval(np.arange(1001.0)) == (25.0, 975.0)


def test_resampled_means_leave_out_what_is_nan():
    rng = np.random.default_rng(0)
    values = rng.random((40, 2))
    values[:, 1][::2] = np.nan
    groups = [f"g{i // 4}" for i in range(40)]
    found = resampled_means(values, groups, 3000, 0)
    assert found.shape == (3000, 2)
    np.testing.assert_allclose(found.mean(0), np.nanmean(values, 0), atol=0.02)
    # Each group has 4 values in one column and 2 in the other: the same as those alone.
    few = resampled_means(values[1::2], groups[1::2], 3000, 0)
    np.testing.assert_allclose(found[:, 1], few[:, 1])
    spread = values[:, 0].reshape(10, 4).mean(1).std() / np.sqrt(10)
    assert found[:, 0].std() == pytest.approx(spread, rel=0.1)


def test_a_resample_in_which_nothing_is_known_is_nan_and_no_part_of_the_interval():
    values = np.array([[1.0], [np.nan]])
    found = resampled_means(values, ["a", "b"], 200, 0)
    assert 20 < np.isnan(found).sum() < 80  # b is drawn twice in a quarter of them
    assert interval(found[:, 0]) == (1, 1)
