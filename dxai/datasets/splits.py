"""Assignment of images to splits."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from pydantic import Field, model_validator

from dxai.config.settings import ParamsError, Settings
from dxai.datasets.base import DataError, Unit
from dxai.utils import keyed_random


class HoldOutOptions(Settings):
    """Options of a release with test images, but no validation images."""

    validation: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of each class's training images that is held out for validation.",
    )
    seed: int = Field(0, description="Seed of the draw of the images that are held out.")


class SplitOptions(Settings):
    """Options of a dataset without splits of its own."""

    validation: float = Field(0.15, gt=0, description="Share that goes to the validation split.")
    test: float = Field(0.2, gt=0, description="Share that goes to the test split.")
    seed: int = Field(0, description="Seed of the assignment to splits.")

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.validation + self.test >= 1:
            raise ParamsError("the sum of validation and test must be below 1")
        return self


def check_group(pattern: str | None) -> str | None:
    """Return a `group` option if it is a regular expression with a capture, or None.

    It is a validator of pydantic, and raises `ParamsError` otherwise.
    """
    try:
        captures = pattern is None or re.compile(pattern).groups
    except re.error as error:
        raise ParamsError(f"{pattern!r} is not a regular expression: {error}") from None
    if not captures:
        raise ParamsError(f"{pattern!r} captures nothing; put brackets around the group")
    return pattern


def group_of(path: str, pattern: str) -> str:
    """Group that a `group` option finds in a path; a path without one raises `DataError`."""
    match = re.search(pattern, path)
    if match is None:
        raise DataError(f"{path}: the group pattern {pattern!r} is not found in this path")
    return "/".join(part or "" for part in match.groups())


def by_split(units: Iterable[Unit]) -> list[Unit]:
    """Sort test first, so that the training image of two equal files is the one to drop."""
    order = {"": 0, "test": 1, "validation": 2, "train": 3}
    return sorted(units, key=lambda unit: (order[unit.split], unit.label, unit.key))


def draw_splits(total: int, test: int, validation: int, seed: int, purpose: str) -> list[str]:
    """Draw the split of each of `total` items; train gets those not drawn for the others."""
    splits = ["train"] * total
    order = keyed_random.permutation(seed, purpose, 0, total)
    for rank, i in enumerate(order[: test + validation]):
        splits[i] = "test" if rank < test else "validation"
    return splits


def hold_out(units: Sequence[Unit], classes: Sequence[str], share: float, seed: int) -> list[Unit]:
    """Move whole groups of train to validation; a class with too few raises `DataError`."""
    sizes: dict[str, Counter[str]] = defaultdict(Counter)  # group -> class -> images
    for unit in units:
        if unit.split == "train":
            sizes[unit.group][unit.label] += 1
    held = choose_groups(sizes, classes, share, seed)
    for label in classes:
        groups = {group for group in sizes if label in sizes[group]}
        if groups <= held:
            raise DataError(
                f"class {label!r}: {len(groups)} group(s) in train, too few to hold some out "
                "for validation; add images or a validation folder"
            )
    return [
        replace(unit, split="validation") if unit.split == "train" and unit.group in held else unit
        for unit in units
    ]


def choose_groups(
    sizes: Mapping[str, Counter[str]], classes: Sequence[str], share: float, seed: int
) -> set[str]:
    """Choose groups that give each class its share of validation images as closely as possible.

    The smallest class chooses first: it has the fewest ways to reach its share (Sechidis et al.
    2011, iterative stratification).
    """
    wanted = {label: share * sum(size[label] for size in sizes.values()) for label in classes}
    held: set[str] = set()
    count: Counter[str] = Counter()
    for label in sorted(classes, key=lambda label: wanted[label]):
        groups = sorted(group for group in sizes if label in sizes[group])
        order = keyed_random.permutation(seed, f"folder/{label}", 0, len(groups))
        free = [groups[i] for i in order if groups[i] not in held]
        for group in free:
            if _fits(sizes[group], count, wanted):
                held.add(group)
                count += sizes[group]
        if free and not count[label]:  # at least one, even if above the share
            held.add(free[0])
            count += sizes[free[0]]
    return held


def _fits(size: Counter[str], count: Counter[str], wanted: Mapping[str, float]) -> bool:
    """Whether a group brings each of its classes nearer to the wanted number of images."""
    return all(count[label] + n / 2 <= wanted[label] for label, n in size.items())
