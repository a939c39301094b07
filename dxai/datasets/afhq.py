"""Layout `afhq`: Animal Faces-HQ v1, `train,val/{cat,dog,wild}/*.jpg`; its val is the test set."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dxai.datasets import class_folders
from dxai.datasets.base import Dropped, Layout, Listing, Unit
from dxai.datasets.class_folders import Aliases, Files
from dxai.datasets.source import Source
from dxai.params import DatasetParams, ParamsError, PrepareParams, parse

SPLITS: Aliases = {"train": ("train",), "test": ("val", "test")}
CLASSES = ("cat", "dog", "wild")


@dataclass(frozen=True)
class HoldOutOptions:
    """Options of a release without validation images.

    Attributes
    ----------
    validation : float
        Share of each class's training images that is held out.
    seed : int
        Of that draw.
    """

    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ParamsError(f"validation is {self.validation}; it must be between 0 and 1")


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images of the three classes."""
    options = parse(HoldOutOptions, dataset.options, "options", complete=False)
    return two_folders(source, dataset, prepare, SPLITS, CLASSES, options)


def two_folders(
    source: Source,
    dataset: DatasetParams,
    prepare: PrepareParams,
    aliases: Aliases,
    classes: tuple[str, ...],
    options: HoldOutOptions,
) -> Listing:
    """List `<split>/<class>/` folders of train and test; validation is held out of train."""
    files = Files(source)
    splits = class_folders.find_splits(files, aliases)
    names = class_folders.find_classes(files, splits, classes)
    units: list[Unit] = []
    dropped: list[Dropped] = []
    for split, top in splits.items():
        for label in names:
            images, others = files.images(f"{top}/{label}")
            units += [files.unit(file, split, label) for file in images]
            dropped += class_folders.dropped_files(others, split, label)
    units = class_folders.hold_out(units, names, options.validation, options.seed)
    read = functools.partial(
        class_folders.read_file, image_size=prepare.image_size, channels=dataset.channels
    )
    return Listing(names, class_folders.by_split(units), read, asdict(options), tuple(dropped))


def draw(folder: Path, options: dict[str, Any]) -> None:
    """Animal heads that differ by ears, snout and spots."""
    from dxai.datasets.samples import afhq

    afhq.draw(folder)


LAYOUT = Layout(
    find,
    draw,
    "AFHQ v1, Choi et al. 2020 (StarGAN v2), https://github.com/clovaai/stargan-v2",
    "CC BY-NC 4.0",
    lambda options: (14630, 1500),
    exact=True,
)
