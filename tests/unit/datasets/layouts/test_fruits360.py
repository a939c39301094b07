from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError
from dxai.datasets.base import DataError, Dropped, Listing
from dxai.datasets.layouts.fruits360 import LAYOUT, find
from dxai.datasets.source import open_source

Tree = Callable[..., Path]

RELEASE = {
    "peppers": {
        "Pepper Green": (444, 148),
        "Pepper Orange": (702, 234),
        "Pepper Red": (666, 222),
        "Pepper Yellow": (666, 222),
    },
    "tomatoes": {
        "Tomato 1": (738, 246),
        "Tomato 2": (672, 225),
        "Tomato 3": (738, 246),
        "Tomato 4": (479, 160),
        "Tomato Cherry Red": (492, 164),
        "Tomato Heart": (684, 228),
        "Tomato Maroon": (367, 127),
        "Tomato Yellow": (459, 153),
        "Tomato not Ripened": (474, 158),
    },
    "apples": {
        "Apple Braeburn": (492, 164),
        "Apple Crimson Snow": (444, 148),
        "Apple Golden 1": (480, 160),
        "Apple Golden 2": (492, 164),
        "Apple Golden 3": (481, 161),
        "Apple Granny Smith": (492, 164),
        "Apple Pink Lady": (456, 152),
        "Apple Red 1": (492, 164),
        "Apple Red 2": (492, 164),
        "Apple Red 3": (429, 144),
        "Apple Red Delicious": (490, 166),
        "Apple Red Yellow 1": (492, 164),
        "Apple Red Yellow 2": (672, 219),
    },
}
"""Training and test images in the folders of the release 2020.05.18."""


def listing(root: Path, fruit: str, **options: object) -> Listing:
    dataset = DatasetParams(
        layout="fruits360", source=str(root), channels=3, options={"fruit": fruit} | options
    )
    return find(open_source(str(root)), dataset, PrepareParams(image_size=6))


def fruit_tree(tree: Tree, fruit: str, rename: Callable[[str], str] = str) -> Path:
    names = [rename(name) for name in RELEASE[fruit]]
    folders = {f"Training/{name}": 10 for name in names} | {f"Test/{name}": 2 for name in names}
    return tree(folders | {"Training/Banana": 1, "Test/Banana": 1}, ".jpg")


@pytest.mark.parametrize("fruit", RELEASE)
def test_classes_of_each_set(tree: Tree, fruit: str) -> None:
    found = listing(fruit_tree(tree, fruit), fruit, validation=0.2)
    assert list(found.class_names) == list(RELEASE[fruit])
    assert len(found.class_names) == {"peppers": 4, "tomatoes": 9, "apples": 13}[fruit]
    counts = Counter((unit.split, unit.label) for unit in found.units)
    for label in RELEASE[fruit]:
        assert [counts[s, label] for s in ("train", "validation", "test")] == [8, 2, 2]


@pytest.mark.parametrize("fruit", RELEASE)
def test_counts_of_table_5_are_those_of_the_release(fruit: str) -> None:
    sums = tuple(sum(pair[k] for pair in RELEASE[fruit].values()) for k in (0, 1))
    assert LAYOUT.counts({"fruit": fruit}) == sums


def test_names_of_later_releases(tree: Tree) -> None:
    """There every class has a number, and there are more of them."""

    def renamed(name: str) -> str:
        return name if name[-1].isdigit() else f"{name} 1"

    root = fruit_tree(tree, "tomatoes", renamed)
    tree({"Training/Tomato Maroon 2": 3, "Test/Tomato Maroon 2": 3})
    found = listing(root, "tomatoes")
    assert list(found.class_names) == list(RELEASE["tomatoes"])
    folders = {unit.label: Path(unit.key).parent.name for unit in found.units}
    assert folders == {name: renamed(name) for name in RELEASE["tomatoes"]}
    assert len(found.units) == 9 * 12


def test_other_fruit_is_counted_that_of_the_same_kind_first(tree: Tree) -> None:
    root = fruit_tree(tree, "peppers", lambda name: f"{name} 1")
    tree({f"Training/{name}": 2 for name in ("Apple 5", "Pepper Red 2", "Walnut")})
    tree({"Test/Pepper Red 2": 1, "papers": 1})
    assert set(listing(root, "peppers").dropped) == {
        Dropped("other classes: Pepper Red 2, Apple 5, Banana, Walnut", 7, "train"),
        Dropped("other classes: Pepper Red 2, Banana", 2, "test"),
        Dropped("in papers/, not a split's folder", 1),
    }


def test_a_class_with_and_without_its_number_is_named(tree: Tree) -> None:
    root = fruit_tree(tree, "peppers")
    tree({"Training/Pepper Red 1": 2})
    message = "Training/Pepper Red and Training/Pepper Red 1 are both class 'Pepper Red'; take one"
    with pytest.raises(DataError, match=message):
        listing(root, "peppers")


@pytest.mark.parametrize("names", [("Training", "Test"), ("train", "test"), ("TRAIN", "Test")])
def test_names_of_the_split_folders(tree: Tree, names: tuple[str, str]) -> None:
    root = fruit_tree(tree, "peppers")
    for old, new in zip(("Training", "Test"), names, strict=True):
        (root / old).rename(root / "moved")
        (root / "moved").rename(root / new)
    assert len(listing(root, "peppers").units) == 4 * 12


@pytest.mark.parametrize("split", ["Training", "Test"])
def test_missing_class_is_named(tree: Tree, split: str) -> None:
    root = fruit_tree(tree, "peppers")
    shutil.rmtree(root / split / "Pepper Red")
    message = f"{split}: no class 'Pepper Red' or 'Pepper Red 1'; there are Banana, Pepper Green"
    with pytest.raises(DataError, match=re.escape(message)):
        listing(root, "peppers")


def test_unknown_fruit(tree: Tree) -> None:
    with pytest.raises(ParamsError, match="fruit is 'pears'; it must be 'peppers',"):
        listing(fruit_tree(tree, "peppers"), "pears")


def test_a_sample_of_an_unknown_fruit_is_refused_with_the_valid_ones(tmp_path):
    with pytest.raises(ParamsError, match=r"options.fruit is 'kiwi'; .*peppers.*tomatoes.*apples"):
        LAYOUT.render_sample(tmp_path, {"fruit": "kiwi"})
    assert not list(tmp_path.iterdir())
