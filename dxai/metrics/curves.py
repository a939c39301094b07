"""Accuracy curves, the area under them, and intervals over independent groups.

Shapes: N images, L levels, G groups, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dxai.utils import keyed_random

CONFIDENCE = (2.5, 97.5)
"""Percentiles of a 95% interval."""


@dataclass(frozen=True)
class Curve:
    """Whether each image was classified correctly at each level.

    Attributes
    ----------
    levels : ndarray
        (L,), rising from 0.
    correct : ndarray
        (N, L), bool.
    groups : sequence of str
        (N,), the units of resampling.
    """

    levels: np.ndarray
    correct: np.ndarray
    groups: Sequence[str]

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy at each level, (L,)."""
        return self.correct.mean(0)

    @property
    def auc(self) -> float:
        """Area under accuracy / accuracy(0) (Table 1); lower is better."""
        return float(area(self.levels, self.accuracy))

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        """Accuracy at each level in each bootstrap resample of the groups, (R, L).

        Curves with the same groups and seed share their resamples, so that differences are paired.
        """
        return resampled_means(self.correct, self.groups, resamples, seed)


def resampled_means(
    values: np.ndarray, groups: Sequence[str], resamples: int, seed: int
) -> np.ndarray:
    """Means of (N, L) values in each bootstrap resample of the groups, (R, L).

    NaNs are ignored. The same groups and seed give the same resamples.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    known = np.isfinite(values)
    sums, sizes = (np.zeros((len(names), values.shape[1])) for _ in range(2))
    np.add.at(sums, member, np.where(known, values, 0).astype(float))
    np.add.at(sizes, member, known.astype(float))
    rng = keyed_random.generator(seed, "bootstrap")
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), resamples)
    with np.errstate(invalid="ignore"):
        return (weights @ sums) / (weights @ sizes)


def area(levels: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Trapezoid area under accuracy / accuracy(0), divided by the range of the levels.

    Parameters
    ----------
    levels : ndarray
        (L,), rising from 0; with beta their range is 1, as in Table 1.
    accuracy : ndarray
        (..., L).

    Returns
    -------
    ndarray
        (...), 1 if no accuracy is lost; NaN where accuracy(0) is 0.
    """
    first = accuracy[..., :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(first > 0, accuracy / first, np.nan)
    return np.trapezoid(relative, levels, axis=-1) / (levels[-1] - levels[0])


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The 95% percentile interval of bootstrap samples (R,); NaN if all of them are."""
    if np.isnan(samples).all():
        return math.nan, math.nan
    low, high = np.nanpercentile(samples, CONFIDENCE)
    return float(low), float(high)


def auc_interval(curve: Curve, resamples: int, seed: int) -> tuple[float, float]:
    """95% interval of the area, resampling groups."""
    return interval(mean_areas([curve], resamples, seed))


def mean_areas(curves: Sequence[Curve], resamples: int, seed: int) -> np.ndarray:
    """The mean area of curves over the same images in each bootstrap resample, (R,)."""
    return np.mean([area(c.levels, c.resampled(resamples, seed)) for c in curves], axis=0)


def paired_difference(
    ours: Sequence[Curve], other: Sequence[Curve], resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean area of ours minus that of the other method, and its paired 95% interval.

    Parameters
    ----------
    ours, other : sequence of Curve
        One per seed (the other method may have just one), all over the same images.
    resamples, seed : int
        Number of bootstrap resamples of the groups, and the key of their draws.

    Returns
    -------
    tuple of float
        Difference, low, high. "Better" means high < 0.
    """
    names = [tuple(curve.groups) for curve in (*ours, *other)]
    if len(set(names)) != 1:
        raise ValueError("a paired difference needs the same images in the same order")

    difference = np.mean([c.auc for c in ours]) - np.mean([c.auc for c in other])
    ours_areas, other_areas = (mean_areas(c, resamples, seed) for c in (ours, other))
    low, high = interval(ours_areas - other_areas)
    return float(difference), low, high
