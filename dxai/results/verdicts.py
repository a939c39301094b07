"""Claims in words: the most important one, and the verdict of each."""

from __future__ import annotations

import math

HOLDS, UNDECIDED, REVERSED, UNKNOWN = "holds", "undecided", "reversed", "unknown"
BEST = "ours is below the best baseline"
"""The claim of Tables 1 and 2."""
AGAINST_BASELINES = ("table1", "table2", "definition1")
"""Tables whose claims compare ours with one of the baselines under its rule for the sign."""

ALIKE = 0.5
"""Rank correlation above which maps of a random classifier share too much with the others: more
than a quarter of the variance of the ranks."""


def verdict(low: float | None, high: float | None) -> str:
    """Judge a claim by the 95% interval of its difference, ours minus the other.

    It holds if the whole interval is below 0, is reversed if all of it is above, and is undecided
    if it includes 0. Without an interval it is unknown.
    """
    if low is None or high is None or math.isnan(low + high):
        return UNKNOWN
    if high < 0:
        return HOLDS
    return REVERSED if low > 0 else UNDECIDED
