"""Claims in words: the one that matters most, and the verdict of each."""

from __future__ import annotations

import math

HOLDS, UNDECIDED, REVERSED, UNKNOWN = "holds", "undecided", "reversed", "unknown"
BEST = "ours is below the best baseline"
"""The claim of Tables 1 and 2."""


def verdict(low: float | None, high: float | None) -> str:
    """Judge a claim by the 95% interval of its difference, ours minus the other.

    A claim holds if the whole interval lies below 0 and is reversed if all of it lies above; these
    images do not decide it if the interval includes 0. Without an interval it is unknown.
    """
    if low is None or high is None or math.isnan(low + high):
        return UNKNOWN
    if high < 0:
        return HOLDS
    return REVERSED if low > 0 else UNDECIDED
