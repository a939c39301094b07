"""Counts taken while a dataset is prepared, for its manifest and its data card."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from dxai.datasets.base import SPLITS, Listing

MOST_NAMED = 20
"""Number of duplicates that are named; the rest are only counted."""


class Twin(NamedTuple):
    """An earlier unit with the same file."""

    split: str
    unit: str
    label: str
    other_class: bool  # whether the file has another class there


class Statistics:
    """Sums over the facts of all units, in their order, and over images left out in listing."""

    def __init__(self, listing: Listing) -> None:
        # Split to class to images kept.
        self.counts = {split: dict.fromkeys(listing.class_names, 0) for split in SPLITS}
        self.dropped: Counter[tuple[str, str, str]] = Counter()  # (rule, split, class) to images
        self._first_dropped: dict[tuple[str, str, str], str] = {}  # the same to a file or unit
        self.sizes: Counter[str] = Counter()  # "WxH" of the image files to images
        self.intensity: dict[str, np.ndarray] = {}  # class to the histogram of its pixel values
        # Numbers of files equal to an earlier one, ``within`` a split, ``across`` two splits, and
        # under two ``classes`` in either case, with pairs of names of the last two.
        self.duplicates: dict[str, Any] = {
            "within": 0,
            "across": 0,
            "examples": [],
            "classes": 0,
            "class_examples": [],
        }
        self.shards: dict[str, list[str]] = {}  # split to names, once written
        self._first: dict[str, tuple[str, str, str]] = {}
        self._classes_drawn = listing.classes_drawn
        for one in listing.dropped:
            self._drop((one.rule, one.split, one.label), one.count, *one.files[:1])

    @property
    def images(self) -> int:
        """Number of images kept."""
        return sum(sum(counts.values()) for counts in self.counts.values())

    def twin_of(self, facts: dict[str, Any]) -> Twin | None:
        """Find the earlier unit with the same content, if there is one."""
        first = self._first.get(facts["digest"])
        if first is None or first[1] == facts["unit"]:
            return None
        labels = {first[2], facts["label"]}
        other_class = not self._classes_drawn and len(labels) > 1 and "" not in labels
        return Twin(*first, other_class)

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

    def left_out_of(self, split: str, label: str) -> str:
        """Say which rules may have left a split without images of a class; empty if none did."""
        rules: Counter[str] = Counter()
        for (rule, where, of), count in self.dropped.items():
            if where in (split, "") and of in (label, ""):
                rules[rule] += count
        told = ", ".join(f"{count} ({rule})" for rule, count in rules.most_common(3))
        return f"; left out there: {told}" if told else ""

    def _drop(self, key: tuple[str, str, str], count: int, *names: str) -> None:
        self.dropped[key] += count
        for name in names:
            self._first_dropped.setdefault(key, name)

    def _note_duplicate(self, facts: dict[str, Any]) -> None:
        twin = self.twin_of(facts)
        if twin is None:
            if facts["digest"]:
                self._first[facts["digest"]] = facts["split"], facts["unit"], facts["label"]
            return
        across = twin.split != facts["split"]
        self.duplicates["across" if across else "within"] += 1
        self.duplicates["classes"] += twin.other_class
        for kind, found in (("examples", across), ("class_examples", twin.other_class)):
            if found and len(self.duplicates[kind]) < MOST_NAMED:
                self.duplicates[kind].append([twin.unit, facts["unit"]])
