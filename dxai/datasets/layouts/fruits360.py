"""Layout `fruits360`: `Training,Test/<class>/*.jpg`, one of the paper's three sets of fruit.

Class names are those of the release 2020.05.18; later releases, which number every class
("Tomato Heart 1"), are read too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import Layout, Listing
from dxai.datasets.layouts.class_folders import Files, classes_of, train_and_test
from dxai.datasets.samples import fruits360
from dxai.datasets.source import Source
from dxai.datasets.splits import HoldOutOptions

FOLDERS = {"train": ("training", "train"), "test": ("test",)}
SETS = {
    fruit: tuple(name for name in fruits360.COLOURS if name.startswith(word))
    for fruit, word in (("peppers", "Pepper"), ("tomatoes", "Tomato"), ("apples", "Apple"))
}
COUNTS = {"peppers": (2478, 826), "tomatoes": (5103, 1707), "apples": (6404, 2134)}
"""Training and test images of the release 2020.05.18 (Table 5)."""


class Fruits360Options(HoldOutOptions):
    fruit: Literal["peppers", "tomatoes", "apples"] = Field("peppers", description="Which classes.")


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images of one set; a missing class raises `DataError`."""
    options = parse(Fruits360Options, dataset.options, "options")
    classes = {label: (label, f"{label} 1") for label in SETS[options.fruit]}
    return train_and_test(Files(source), dataset, prepare, FOLDERS, classes, options)


def render_sample(folder: Path, options: dict[str, Any], seed: int = 0) -> None:
    """Draw fruit whose colour is the class."""
    fruit = parse(Fruits360Options, options, "options").fruit
    fruits360.render_sample(folder, seed, SETS[fruit])


LAYOUT = Layout(
    find,
    render_sample,
    "Fruits-360, Mureşan and Oltean 2018, https://github.com/fruits-360",
    "CC BY-SA 4.0",
    lambda options: COUNTS[options["fruit"]],
    exact=True,
    options=Fruits360Options,
    fits=lambda names: any(
        {re.sub(r" 1$", "", found) for found in classes_of(names, FOLDERS["train"])} >= set(fruit)
        for fruit in SETS.values()
    ),
    looks_for="Training/ with the folders of its peppers, tomatoes or apples",
)
