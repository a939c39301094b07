"""Layout `fruits360`: `Training,Test/<class>/*.jpg`, one of the paper's three sets of fruit.

Class names are those of the release 2020.05.18; later releases, which number every class
("Tomato Heart 1"), are read too.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from dxai.datasets import class_folders
from dxai.datasets.afhq import HoldOutOptions
from dxai.datasets.base import DataError, Dropped, Layout, Listing, Unit
from dxai.datasets.class_folders import Files
from dxai.datasets.source import Source
from dxai.params import DatasetParams, PrepareParams, parse

FOLDERS = {"train": ("training", "train"), "test": ("test",)}
SETS = {
    "peppers": ("Pepper Green", "Pepper Orange", "Pepper Red", "Pepper Yellow"),
    "tomatoes": (
        "Tomato 1", "Tomato 2", "Tomato 3", "Tomato 4", "Tomato Cherry Red", "Tomato Heart",
        "Tomato Maroon", "Tomato Yellow", "Tomato not Ripened",
    ),
    "apples": (
        "Apple Braeburn", "Apple Crimson Snow", "Apple Golden 1", "Apple Golden 2",
        "Apple Golden 3", "Apple Granny Smith", "Apple Pink Lady", "Apple Red 1", "Apple Red 2",
        "Apple Red 3", "Apple Red Delicious", "Apple Red Yellow 1", "Apple Red Yellow 2",
    ),
}  # fmt: skip
COUNTS = {"peppers": (2478, 826), "tomatoes": (5103, 1707), "apples": (6404, 2134)}
"""Training and test images of the release 2020.05.18 (Table 5)."""


@dataclass(frozen=True)
class Fruits360Options(HoldOutOptions):
    """Options of the layout, beside those of `HoldOutOptions`.

    Attributes
    ----------
    fruit : {'peppers', 'tomatoes', 'apples'}
        Which classes.
    """

    fruit: Literal["peppers", "tomatoes", "apples"] = "peppers"


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images of one set.

    Raises
    ------
    DataError
        For a class that the source lacks.
    """
    options = parse(Fruits360Options, dataset.options, "options", complete=False)
    files = Files(source)
    splits = class_folders.find_splits(files, FOLDERS)
    units: list[Unit] = []
    dropped: list[Dropped] = []
    for split, top in splits.items():
        there = files.folders(top)
        for label in SETS[options.fruit]:
            images, others = files.images(f"{top}/{_folder(label, there, f'{source.name}/{top}')}")
            units += [files.unit(file, split, label) for file in images]
            dropped += class_folders.dropped_files(others, split, label)
    units = class_folders.hold_out(units, SETS[options.fruit], options.validation, options.seed)
    read = functools.partial(
        class_folders.read_file, image_size=prepare.image_size, channels=dataset.channels
    )
    return Listing(
        SETS[options.fruit],
        class_folders.by_split(units),
        read,
        asdict(options),
        tuple(dropped),
    )


def _folder(label: str, there: list[str], where: str) -> str:
    """The folder of a class, by its name of either release."""
    for name in (label, f"{label} 1"):
        if name in there:
            return name
    valid = ", ".join(there)
    raise DataError(f"{where}: no class {label!r} (nor '{label} 1'); there are {valid}")


def draw(folder: Path, options: dict[str, Any]) -> None:
    """Fruit whose colour is the class."""
    from dxai.datasets.samples import fruits360

    fruits360.draw(folder, classes=SETS[str(options.get("fruit", "peppers"))])


LAYOUT = Layout(
    find,
    draw,
    "Fruits-360, Mureşan and Oltean 2018, https://github.com/fruits-360",
    "CC BY-SA 4.0",
    lambda options: COUNTS[options["fruit"]],
    exact=True,
)
