from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import DataError, Dropped, Listing
from dxai.datasets.layouts.celeba import find
from dxai.datasets.source import open_source
from tests.listings import samples_of

Tree = Callable[..., Path]
NAMES = "Bald Male Young"
MALE = (1, -1, -1, 1, 1, -1, 1, -1)
PARTS = (0, 0, 0, 0, 1, 1, 2, 2)


def listing(root: Path, **options: object) -> Listing:
    dataset = DatasetParams(layout="celeba", source=str(root), channels=3, options=options)
    return find(open_source(str(root)), dataset, PrepareParams(image_size=6))


@pytest.fixture
def celeba(tree: Tree) -> Path:
    """The original release in small: 8 faces, class and split as above."""
    root = tree({"img_align_celeba": 8}, ".jpg")
    rows = [f"{i:03d}.jpg {-m:2d} {m:2d}  1\n" for i, m in enumerate(MALE)]
    (root / "list_attr_celeba.txt").write_text(f"8\n{NAMES}\n" + "".join(rows))
    parts = [f"{i:03d}.jpg {part}\n" for i, part in enumerate(PARTS)]
    (root / "list_eval_partition.txt").write_text("".join(parts))
    return root


def edit(root: Path, name: str, old: str, new: str) -> None:
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"


def test_attribute_male_and_partition_decide(celeba: Path) -> None:
    """Male 1 is male; partition 0 is train, 1 validation, 2 test."""
    samples = list(samples_of(listing(celeba), open_source(str(celeba)).load))
    assert len(samples) == 8
    for sample in samples:
        i = int(Path(sample.id).stem)
        assert sample.label == ("male" if MALE[i] == 1 else "female")
        assert sample.split == ("train", "validation", "test")[PARTS[i]]
        with Image.open(celeba / sample.id) as image:
            np.testing.assert_array_equal(sample.image, np.asarray(image))
    assert not listing(celeba).dropped


@pytest.mark.parametrize("column", range(3))
def test_the_attribute_is_found_by_its_name(celeba: Path, column: int) -> None:
    names = ["Bald", "Young"]
    names.insert(column, "Male")
    rows = []
    for i, male in enumerate(MALE):
        values = [-male, -male]
        values.insert(column, male)
        rows.append(f"{i:03d}.jpg " + " ".join(map(str, values)))
    (celeba / ATTRIBUTES).write_text("\n".join(["8", " ".join(names) + " ", *rows, "", ""]))
    labels = {unit.key: unit.label for unit in listing(celeba).units}
    for i, male in enumerate(MALE):
        assert labels[f"img_align_celeba/{i:03d}.jpg"] == ("male" if male == 1 else "female")


def test_lists_and_images_wherever_they_lie(celeba: Path) -> None:
    for name, folder in ((ATTRIBUTES, "Anno"), (PARTITION, "Eval"), ("img_align_celeba", "Img")):
        (celeba / folder).mkdir()
        (celeba / name).rename(celeba / folder / name)
    assert len(listing(celeba).units) == 8


def test_class_folders(tree: Tree) -> None:
    """As StarGAN v2 splits CelebA-HQ: val is the test set, validation is held out of train."""
    found = listing(tree({"train/female": 10, "train/male": 20, "val/female": 2, "val/male": 3}))
    assert found.class_names == ("female", "male")
    splits = {f"{unit.split}/{unit.label}" for unit in found.units}
    assert len(splits) == 6 and len(found.units) == 35
    held = [unit.key for unit in found.units if unit.split == "validation"]
    assert len(held) == 3 and all(key.startswith("train/") for key in held)
    tests = [unit.key for unit in found.units if unit.split == "test"]
    assert len(tests) == 5 and all(key.startswith("val/") for key in tests)


def test_images_that_are_not_listed_are_counted(celeba: Path) -> None:
    for name in ("100.jpg", "101.jpg"):
        shutil.copy(celeba / "img_align_celeba/000.jpg", celeba / "img_align_celeba" / name)
    found = listing(celeba)
    assert len(found.units) == 8
    assert found.dropped == (Dropped("not in list_attr_celeba.txt", 2),)


def test_listed_image_that_is_missing(celeba: Path) -> None:
    (celeba / "img_align_celeba/005.jpg").unlink()
    with pytest.raises(DataError, match=r"005\.jpg of list_attr_celeba\.txt does not exist"):
        listing(celeba)


def test_two_images_of_a_name(celeba: Path) -> None:
    shutil.copytree(celeba / "img_align_celeba", celeba / "img_celeba")
    with pytest.raises(DataError, match=r"img_celeba/000\.jpg and img_align_celeba/000\.jpg"):
        listing(celeba)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION])
def test_missing_or_double_list(celeba: Path, name: str) -> None:
    (celeba / "old").mkdir()
    shutil.copy(celeba / name, celeba / "old" / name)
    with pytest.raises(DataError, match=rf"old/{name}.* same name"):
        listing(celeba)
    (celeba / "old" / name).unlink()
    (celeba / name).unlink()
    with pytest.raises(DataError, match=f"no {name}"):
        listing(celeba)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (ATTRIBUTES, "8\n", "", "line 1: the number of images is expected"),
        (ATTRIBUTES, "8\n", "eight\n", "line 1: the number of images is expected"),
        (ATTRIBUTES, "8\n", "²\n", "line 1: the number of images is expected"),
        (ATTRIBUTES, "8\n", "9\n", "8 images, but line 1 says 9"),
        (ATTRIBUTES, "Male", "male", "line 2: no attribute Male"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg  0", "line 5: a name and 3 of -1, 1 are expected"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg", "line 5: a name and 3 of -1, 1 are expected"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg 1 1", "line 5: a name and 3 of -1, 1 are expected"),
        (ATTRIBUTES, "002.jpg  1", "002.jpg,1", "line 5: a name and 3 of -1, 1 are expected"),
        (ATTRIBUTES, "002.jpg", "001.jpg", "line 5: 001.jpg for the second time"),
        (ATTRIBUTES, "002.jpg", "102.jpg", "002.jpg stands in one of"),
        (PARTITION, "002.jpg 0", "002.jpg 3", "line 3: a name and 0, 1 or 2 are expected"),
        (PARTITION, "002.jpg 0", "002.jpg", "line 3: a name and 0, 1 or 2 are expected"),
        (PARTITION, "002.jpg 0", "002.jpg 0 0", "line 3: a name and 0, 1 or 2 are expected"),
        (PARTITION, "002.jpg 0", "002.jpg train", "line 3: a name and 0, 1 or 2 are expected"),
        (PARTITION, "002.jpg 0\n", "001.jpg 2\n", "line 3: 001.jpg for the second time"),
        (PARTITION, "002.jpg 0\n", "", "002.jpg stands in one of"),
        (PARTITION, "007.jpg 2\n", "007.jpg 2\n008.jpg 2\n", "008.jpg stands in one of"),
    ],
)
def test_malformed_lists(celeba: Path, name: str, old: str, new: str, message: str) -> None:
    edit(celeba, name, old, new)
    where = f"{name}, " if message.startswith("line") else ""
    with pytest.raises(DataError, match=re.escape(where + message)):
        listing(celeba)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION])
def test_list_that_is_no_text(celeba: Path, name: str) -> None:
    (celeba / name).write_bytes(b"\xff\xfe8\x00")
    with pytest.raises(DataError, match=rf"{name}: no text"):
        listing(celeba)


@pytest.mark.parametrize("name", [ATTRIBUTES, PARTITION])
def test_empty_list(celeba: Path, name: str) -> None:
    (celeba / name).write_bytes(b"")
    with pytest.raises(DataError, match=name):
        listing(celeba)
