"""How alike two explanations of the same images are (the model randomisation test).

Shapes: N images, C channels, H x W pixels. Maps are compared by their absolute values, the mean
over channels.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import rankdata

WINDOW = 7
"""Side of the window of SSIM, pixels, as in Wang et al. 2004 and scikit-image."""


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of the pixels of each pair of maps, (N, C, H, W) to (N,) in [-1, 1].

    NaN where a map is constant, so that it ranks no pixel.
    """
    x, y = (rankdata(_size(maps).reshape(len(maps), -1), axis=1) for maps in (a, b))
    x, y = (ranks - ranks.mean(1, keepdims=True) for ranks in (x, y))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))


def structural_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM of each pair of maps, each scaled to a maximum of 1: (N, C, H, W) to (N,) in [-1, 1].

    Wang et al. 2004 with uniform windows and their constants for a range of 1.
    """
    x, y = (_scaled(_size(maps)) for maps in (a, b))
    mean_x, mean_y, xx, yy, xy = (
        uniform_filter(values, (0, WINDOW, WINDOW)) for values in (x, y, x * x, y * y, x * y)
    )
    near, spread = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + near) / (mean_x**2 + mean_y**2 + near)
    covariance, both = xy - mean_x * mean_y, xx - mean_x**2 + yy - mean_y**2
    return (luminance * (2 * covariance + spread) / (both + spread)).mean((1, 2))


def _size(maps: np.ndarray) -> np.ndarray:
    return np.abs(maps.astype(np.float64)).mean(1)


def _scaled(maps: np.ndarray) -> np.ndarray:
    peak = maps.max((1, 2), keepdims=True)
    return maps / np.where(peak > 0, peak, 1)
