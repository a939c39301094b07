"""Agreement between several maps of an image (Table 4).

Shapes: S maps (seeds, or layers), N images, C channels, H x W pixels.
"""

from __future__ import annotations

import numpy as np


def deviation(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over pixels of the standard deviation over maps, absolute and relative to their range.

    Parameters
    ----------
    maps : ndarray
        (S, N, C, H, W).

    Returns
    -------
    tuple of ndarray
        Each (N,): the standard deviation (ddof 0), and the same divided by the range of the
        image's values over all its maps; NaN if its maps are constant.
    """
    spread = pixel_deviation(maps).mean((1, 2, 3))
    values = maps.astype(np.float64)
    reach = values.max((0, 2, 3, 4)) - values.min((0, 2, 3, 4))
    return spread, np.divide(spread, reach, out=np.full_like(spread, np.nan), where=reach > 0)


def pixel_deviation(maps: np.ndarray) -> np.ndarray:
    """The standard deviation (ddof 0) over maps of each pixel: (N, C, H, W)."""
    return maps.astype(np.float64).std(0)
