"""What is counted while a dataset is prepared, for its manifest and its data card."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from dxai.datasets.base import SPLITS, Listing

MOST_NAMED = 20
"""Duplicates that are named; the rest are only counted."""


class Statistics:
    """Sums over the facts of all units, in their order, and over what the listing left out.

    Attributes
    ----------
    counts : dict
        Split to class to images kept.
    dropped : Counter
        (rule, split, class) to images left out.
    sizes : Counter
        "WxH" of the image files to images.
    intensity : dict
        Class to the histogram of its pixel values.
    duplicates : dict
        ``within`` and ``across`` splits, how many files are the same as an earlier one;
        ``examples``, pairs of names of the latter.
    shards : dict
        Split to names of its shards, once written.
    """

    def __init__(self, listing: Listing) -> None:
        self.counts = {split: dict.fromkeys(listing.class_names, 0) for split in SPLITS}
        self.dropped: Counter[tuple[str, str, str]] = Counter()
        self.sizes: Counter[str] = Counter()
        self.intensity: dict[str, np.ndarray] = {}
        self.duplicates: dict[str, Any] = {"within": 0, "across": 0, "examples": []}
        self.shards: dict[str, list[str]] = {}
        self._first: dict[str, tuple[str, str]] = {}
        for one in listing.dropped:
            self.dropped[one.rule, one.split, one.label] += one.count

    @property
    def images(self) -> int:
        """All that are kept."""
        return sum(sum(counts.values()) for counts in self.counts.values())

    def first_of(self, facts: dict[str, Any]) -> tuple[str, str] | None:
        """Split and name of the earlier unit with the same content, if there is one."""
        return self._first.get(facts["digest"])

    def add(self, facts: dict[str, Any]) -> None:
        """Count one unit."""
        for split, counts in facts["rows"].items():
            for label, count in counts.items():
                self.counts[split][label] += count
        for rule, count, split, label in facts["dropped"]:
            self.dropped[rule, split, label] += count
        self.sizes.update(facts["sizes"])
        for label, histogram in facts["intensity"].items():
            values = np.asarray(histogram, np.int64)
            self.intensity[label] = self.intensity.get(label, 0) + values
        self._note_duplicate(facts)

    def dropped_rows(self) -> list[dict[str, Any]]:
        """`dropped` as rows, sorted: ``rule``, ``split``, ``class``, ``images``."""
        return [
            {"rule": rule, "split": split, "class": label, "images": count}
            for (rule, split, label), count in sorted(self.dropped.items())
        ]

    def _note_duplicate(self, facts: dict[str, Any]) -> None:
        if not facts["digest"]:
            return
        first = self._first.setdefault(facts["digest"], (facts["split"], facts["unit"]))
        if first[1] == facts["unit"]:
            return
        across = first[0] != facts["split"]
        self.duplicates["across" if across else "within"] += 1
        if across and len(self.duplicates["examples"]) < MOST_NAMED:
            self.duplicates["examples"].append([first[1], facts["unit"]])
