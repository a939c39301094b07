"""Listings of seeded noise in place of a layout's, for tests of the steps after layouts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dxai.datasets.base import Listing, Load, Sample, Unit
from dxai.datasets.shard_writer import Target, write_dataset

PER_UNIT = 3
"""Images per unit; ids contain the unit's name, and classes a and b alternate."""


def noise_listing(counts: dict[str, int], size: int = 8, channels: int = 3) -> Listing:
    """List `{"train": 5, ..}` images per split, in units of up to three without files."""
    units = [
        Unit(f"{split}/{start:05d}", split, about=(range(start, min(start + PER_UNIT, count)),))
        for split, count in counts.items()
        for start in range(0, count, PER_UNIT)
    ]
    read = functools.partial(read_noise, size=size, channels=channels)
    return Listing(("a", "b"), units, read, {"seed": 0})


def read_noise(unit: Unit, load: Load, size: int, channels: int) -> Iterator[Sample]:
    """Yield the images of a unit."""
    (numbers,) = unit.about
    shape = (size, size, 3) if channels == 3 else (size, size)
    for i in numbers:
        rng = np.random.default_rng((len(unit.split), i))
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        mask = rng.integers(0, 256, (size, size), dtype=np.uint8) if i % 2 else None
        yield Sample(
            pixels, unit.split, "ab"[i % 2], f"{unit.key}/{i}", f"g{i // 3}", f"box {i}", mask
        )


def samples_of(listing: Listing, load: Load) -> Iterator[Sample]:
    """Read every sample of a listing, one by one in this process."""
    for unit in listing.units:
        for found in listing.read(unit, load):
            if isinstance(found, Sample):
                yield found


def no_files(file: object) -> bytes:
    """Fail: the `load` of a listing without files."""
    raise AssertionError("nothing to load")


def write_noise(
    folder: Path, counts: dict[str, int], size: int = 8, channels: int = 3, **target: Any
) -> Path:
    """Prepare such a listing and return the dataset's folder; `target` has fields of `Target`."""
    write_dataset(
        target_of(folder, size, channels, **target), noise_listing(counts, size, channels), None
    )
    return folder / "noise"


def target_of(folder: Path, size: int = 8, channels: int = 3, **fields: Any) -> Target:
    """Return a target below `folder`."""
    about = {"name": "noise", "layout": "noise", "drawn": True, "channels": channels}
    about |= {"image_size": size, "encoding": "png"}
    return replace(Target(folder / "noise", folder / "work/noise/x", about), **fields)
