"""Counts taken while a dataset is prepared, for its manifest and its data card."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from dxai.datasets.base import SPLITS, Listing

MOST_NAMED = 20
"""Number of duplicates that are named; the rest are only counted."""


class Statistics:
    """Sums over the facts of all units, in their order, and over images left out in listing."""

    def __init__(self, listing: Listing) -> None:
        # Split to class to images kept.
        self.counts = {split: dict.fromkeys(listing.class_names, 0) for split in SPLITS}
        self.dropped: Counter[tuple[str, str, str]] = Counter()  # (rule, split, class) to images
        self._first_dropped: dict[tuple[str, str, str], str] = {}  # the same to a file or unit
        self.sizes: Counter[str] = Counter()  # "WxH" of the image files to images
        self.intensity: dict[str, np.ndarray] = {}  # class to the histogram of its pixel values
        # Numbers of files equal to an earlier one, and pairs of names of those ``across`` splits.
        self.duplicates: dict[str, Any] = {"within": 0, "across": 0, "examples": []}
        self.shards: dict[str, list[str]] = {}  # split to names, once written
        self._first: dict[str, tuple[str, str]] = {}
        for one in listing.dropped:
            self._drop((one.rule, one.split, one.label), one.count, *one.files[:1])

    @property
    def images(self) -> int:
        """Number of images kept."""
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
            self._drop((rule, split, label), count, facts["unit"])
        self.sizes.update(facts["sizes"])
        for label, histogram in facts["intensity"].items():
            values = np.asarray(histogram, np.int64)
            self.intensity[label] = self.intensity.get(label, 0) + values
        self._note_duplicate(facts)

    def dropped_rows(self) -> list[dict[str, Any]]:
        """`dropped` as rows, sorted: ``rule``, ``split``, ``class``, ``images``, ``first``.

        ``first`` is the name of one of the files.
        """
        return [
            {
                "rule": rule,
                "split": split,
                "class": label,
                "images": count,
                "first": self._first_dropped.get((rule, split, label), ""),
            }
            for (rule, split, label), count in sorted(self.dropped.items())
        ]

    def _drop(self, key: tuple[str, str, str], count: int, *names: str) -> None:
        self.dropped[key] += count
        for name in names:
            self._first_dropped.setdefault(key, name)

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
