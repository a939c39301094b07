"""Layout `textures`: patches of the photographs brick, grass and gravel inside scikit-image.

Each photograph is cut into square blocks, and whole blocks go to train, validation or test, so
that no pixel is in two splits. Patches keep the photograph's own resolution. Training patches
overlap (every `stride` pixels within a block); validation and test patches do not.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError, parse
from dxai.datasets.base import SPLITS, Layout, Listing, Load, Sample, Unit
from dxai.datasets.source import Source
from dxai.datasets.splits import SplitOptions, draw_splits

PHOTOGRAPHS = ("brick", "grass", "gravel")
SIDE = 512
"""Side of each photograph, pixels."""


class TexturesOptions(SplitOptions):
    """Options of the layout `textures`; shares are of each photograph's blocks, at least one."""

    block: int = Field(
        64,
        ge=1,
        le=SIDE,
        description="Side of a source block, pixels.\n"
        "The remainder at the photograph's edge is not used.",
    )
    stride: int = Field(8, ge=1, description="Pixels between two training patches of a block.")
    validation: float = Field(0.2, gt=0, description="Share that goes to the validation split.")

    @model_validator(mode="after")
    def _check_block(self) -> Self:
        if self.blocks < 3:
            raise ParamsError(
                f"block {self.block} gives {self.blocks} block a photograph, three splits need 3; "
                f"take at most {SIDE // 2}"
            )
        return self

    @property
    def blocks(self) -> int:
        """Blocks per photograph."""
        return (SIDE // self.block) ** 2


def find(source: Source | None, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the patches of photographs that ship inside scikit-image; no source is read.

    An impossible option, or an image size larger than a block, raises `ParamsError`.
    """
    options = parse(TexturesOptions, dataset.options, "options")
    size = prepare.image_size
    if size > options.block:
        raise ParamsError(
            f"image_size {size} does not fit a block of {options.block} pixels; "
            f"raise options.block (up to {SIDE // 2}) or lower prepare.image_size"
        )
    across = SIDE // options.block
    units = [
        Unit(group, split, (), name, group, divmod(i, across))
        for name in PHOTOGRAPHS
        for i, split in enumerate(_assign(name, options))
        for group in ["{}/block-{}-{}".format(name, *divmod(i, across))]
    ]
    read = functools.partial(
        read_block, options=options, image_size=size, channels=dataset.channels
    )
    # Blocks of a split keep the photograph's order, which decides the order of the images.
    units.sort(key=lambda unit: -SPLITS.index(unit.split))
    return Listing(PHOTOGRAPHS, units, read, options.model_dump())


@functools.cache
def photograph(name: str) -> np.ndarray:
    """Load one of `PHOTOGRAPHS`: uint8, (512, 512)."""
    import skimage.data  # imported late: most readers of shards never need it

    return np.asarray(getattr(skimage.data, name)())


def _assign(photograph: str, options: TexturesOptions) -> list[str]:
    """Draw the split of each block, row by row."""
    total = options.blocks
    test = min(max(1, round(total * options.test)), total - 2)
    validation = min(max(1, round(total * options.validation)), total - test - 1)
    return draw_splits(total, test, validation, options.seed, f"textures/{photograph}")


def read_block(
    unit: Unit, load: Load, options: TexturesOptions, image_size: int, channels: int
) -> Iterator[Sample]:
    """Yield the patches of a block: every `stride` pixels in train, side by side elsewhere."""
    row, column = unit.about
    step = options.stride if unit.split == "train" else image_size
    offsets = range(0, options.block - image_size + 1, step)
    for y, x in itertools.product(offsets, offsets):
        top, left = row * options.block + y, column * options.block + x
        bottom, right = top + image_size, left + image_size
        pixels = photograph(unit.label)[top:bottom, left:right]
        if channels == 3:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        yield Sample(
            np.ascontiguousarray(pixels),
            unit.split,
            unit.label,
            f"{unit.group}/y{top:03d}-x{left:03d}",
            unit.group,
            f"{unit.label}.png rows {top}-{bottom - 1}, columns {left}-{right - 1}",
            size=(SIDE, SIDE),
        )


LAYOUT = Layout(
    find,
    None,
    "photographs brick, grass and gravel inside scikit-image (data/textures.md)",
    "CC0",
    options=TexturesOptions,
)
