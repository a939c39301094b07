"""What the layouts of one image a file share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.datasets.base import DataError
from dxai.datasets.layouts.class_folders import Files, find_splits, read_file
from dxai.datasets.source import LocalSource

Tree = Callable[..., Path]


def files(root: Path) -> Files:
    return Files(LocalSource(root))


def test_folders_and_their_files(tree: Tree) -> None:
    root = tree({"train/a": 2, "train/a/deep/er": 1, "train/b": 1, "test/a": 1})
    (root / "train/a/readme.txt").write_text("")
    (root / "train/list.csv").write_text("")
    (root / "train/empty").mkdir()
    (root / "nothing").mkdir()
    found = files(root)
    assert found.folders() == ["nothing", "test", "train"]
    assert found.folders("train") == ["a", "b", "empty"]
    assert found.folders("nothing") == found.folders("absent") == []
    assert [file.name for file in found.images("train/a")] == [
        "train/a/000.png",
        "train/a/001.png",
        "train/a/deep/er/000.png",
    ]
    with pytest.raises(DataError, match=r"train/empty: no images"):
        found.images("train/empty")


def test_folder_whose_name_starts_like_another(tree: Tree) -> None:
    found = files(tree({"train/a": 1, "train/ab": 1, "train2/c": 1}))
    assert found.folders("train") == ["a", "ab"]
    assert len(found.images("train/a")) == 1


def test_a_file_of_a_splits_name_is_no_split(tree: Tree) -> None:
    root = tree({"train/a": 1})
    (root / "test").write_text("")
    with pytest.raises(DataError, match="no test folder"):
        find_splits(files(root), {"train": ("train",), "test": ("test",)})


NAMES = {"train": ("train", "training"), "test": ("test",)}


def test_split_folders_further_down(tree: Tree) -> None:
    """All in one folder; the ground truth is laid out alike and is not counted."""
    root = tree({"data/v1/Training/a": 1, "data/v1/test/a": 1, "truth/mask/data/v1/test/a": 1})
    tree({"truth/mask/train/a": 1, "truth/mask/test/a": 1, "data/papers/train": 1})
    assert find_splits(files(root), NAMES) == {"train": "data/v1/Training", "test": "data/v1/test"}
    tree({"data/v2/train/a": 1})
    assert len(find_splits(files(root), NAMES)) == 2
    tree({"data/v2/test/a": 1})
    with pytest.raises(DataError, match=r"in data/v1, data/v2; set source to one of these"):
        find_splits(files(root), NAMES)
    tree({"train/a": 1, "test/a": 1})
    assert find_splits(files(root), NAMES) == {"train": "train", "test": "test"}


def test_missing_splits_are_told_with_what_is_there(tree: Tree) -> None:
    root = tree({"cat": 1, "dog": 1})
    with pytest.raises(
        DataError, match=r"no train folder \(named train or training\); there are c"
    ):
        find_splits(files(root), NAMES)
    tree({"train/cat": 1})
    with pytest.raises(
        DataError, match=r"no test folder \(named test\); there are cat, dog, train"
    ):
        find_splits(files(root), NAMES)


@pytest.mark.parametrize("channels", [1, 3])
def test_sample_of_a_file(tmp_path: Path, channels: int) -> None:
    """The centred square of a wide image; its own size is kept for the data card."""
    pixels = np.zeros((4, 10, 3), np.uint8)
    pixels[:, 3:7] = 90
    (tmp_path / "train/a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "train/a/x.png")
    found = files(tmp_path)
    unit = found.unit(found.all["train/a/x.png"], "train", "a")
    (sample,) = read_file(unit, found.source.load, 2, channels)
    shape = (2, 2) if channels == 1 else (2, 2, 3)
    np.testing.assert_array_equal(sample.image, np.full(shape, 90))
    assert sample.size == (10, 4)
    assert (sample.split, sample.label) == ("train", "a")
    assert sample.id == sample.group == sample.source == "train/a/x.png"
    assert sample.mask is sample.neutral is None
