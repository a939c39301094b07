from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError
from dxai.datasets.base import DataError, Dropped, Listing
from dxai.datasets.layouts.afhq import find
from dxai.datasets.source import open_source
from tests.listings import samples_of

Tree = Callable[..., Path]
AFHQ = {f"train/{k}": n for k, n in (("cat", 20), ("dog", 10), ("wild", 30))}
AFHQ |= {"val/cat": 3, "val/dog": 4, "val/wild": 5}


def listing(root: Path, **options: object) -> Listing:
    dataset = DatasetParams(layout="afhq", source=str(root), channels=3, options=options)
    return find(open_source(str(root)), dataset, PrepareParams(image_size=6))


def counts(found: Listing) -> dict[str, int]:
    return dict(Counter(f"{unit.split}/{unit.label}" for unit in found.units))


def test_val_is_the_test_set_and_validation_is_held_out(tree: Tree) -> None:
    found = listing(tree(AFHQ, ".jpg"), validation=0.1)
    assert found.class_names == ("cat", "dog", "wild")
    assert counts(found) == {
        "test/cat": 3,
        "test/dog": 4,
        "test/wild": 5,
        "validation/cat": 2,
        "validation/dog": 1,
        "validation/wild": 3,
        "train/cat": 18,
        "train/dog": 9,
        "train/wild": 27,
    }
    for unit in found.units:
        assert unit.key.startswith("val/" if unit.split == "test" else "train/")


def test_pixels_are_those_of_the_files(tree: Tree) -> None:
    root = tree(AFHQ, ".jpg")
    for sample in samples_of(listing(root), open_source(str(root)).load):
        with Image.open(root / sample.id) as image:
            np.testing.assert_array_equal(sample.image, np.asarray(image))
        assert sample.label == Path(sample.id).parent.name


def test_the_held_out_images_follow_the_seed(tree: Tree) -> None:
    root = tree(AFHQ)

    def held(seed: int) -> set[str]:
        return {u.key for u in listing(root, seed=seed).units if u.split == "validation"}

    assert held(0) == held(0)
    assert len({frozenset(held(seed)) for seed in range(4)}) == 4


def test_other_folders_and_files_are_left_out(tree: Tree) -> None:
    tree({"train/fox": 2, "mystery/cat": 2})
    root = tree(AFHQ)
    (root / "train/cat/list.txt").write_text("")
    (root / "readme.txt").write_text("")
    found = listing(root)
    assert found.class_names == ("cat", "dog", "wild")
    assert len(found.units) == sum(AFHQ.values())
    assert set(found.dropped) == {
        Dropped("no image by its suffix", 1, "train", "cat"),
        Dropped("other classes: fox", 2, "train"),
        Dropped("in mystery/, not a split's folder", 2),
    }


@pytest.mark.parametrize("inside", ["", "afhq", "stargan/data/afhq_v2"])
@pytest.mark.parametrize("test", ["val", "test"])
def test_either_release_as_unpacked(tree: Tree, inside: str, test: str) -> None:
    """Release 1 is JPEG and has val, release 2 is PNG and has test; archives hold a folder."""
    names = {name.replace("val/", f"{test}/"): count for name, count in AFHQ.items()}
    root = tree({f"{inside}/{name}".lstrip("/"): count for name, count in names.items()})
    assert Counter(unit.split for unit in listing(root).units)["test"] == 12


def test_folders_of_a_class_in_any_spelling_but_once(tree: Tree) -> None:
    root = tree({name.replace("cat", "Cat "): count for name, count in AFHQ.items()})
    assert {unit.label for unit in listing(root).units} == {"cat", "dog", "wild"}
    tree({"train/cat": 2})
    with pytest.raises(DataError, match="train/Cat  and train/cat are both class 'cat'"):
        listing(root)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("train/dog", "train: no class 'dog'; there are cat, wild"),
        ("val/dog", "val: no class 'dog'; there are cat, wild"),
        ("val", "no test folder (named val or test)"),
        ("train", "no train folder"),
    ],
)
def test_what_is_missing_is_named(tree: Tree, folder: str, message: str) -> None:
    root = tree(AFHQ)
    shutil.rmtree(root / folder)
    with pytest.raises(DataError, match=re.escape(message)):
        listing(root)


def test_empty_class_is_named(tree: Tree) -> None:
    root = tree(AFHQ)
    for path in (root / "val/wild").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"val/wild: no images"):
        listing(root)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_bad_share(tree: Tree, share: float) -> None:
    with pytest.raises(ParamsError, match=f"validation is {share}"):
        listing(tree(AFHQ), validation=share)
