"""What is killed, in which order."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence


def evenly(victims: Sequence[str], count: int, chance: random.Random) -> list[str]:
    """Return `count` victims in random order, each as often as the others, or once more."""
    chosen = [victims[i % len(victims)] for i in range(count)]
    chance.shuffle(chosen)
    return chosen


def next_of(plan: Sequence[str], present: Collection[str]) -> int | None:
    """Return the place of the first of a plan that is there to be killed; None if none is."""
    return next((i for i, victim in enumerate(plan) if victim in present), None)
