"""What the layouts of one image a file share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.datasets.base import DataError
from dxai.datasets.layouts.class_folders import Files, dropped_files, find_splits, read_file
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
    images, others = found.images("train/a")
    assert [file.name for file in images] == [
        "train/a/000.png",
        "train/a/001.png",
        "train/a/deep/er/000.png",
    ]
    assert [file.name for file in others] == ["train/a/readme.txt"]
    (dropped,) = dropped_files(others, "train", "a")
    assert (dropped.count, dropped.split, dropped.label) == (1, "train", "a")
    assert dropped_files([], "train", "a") == []
    with pytest.raises(DataError, match=r"train/empty: no images"):
        found.images("train/empty")


def test_folder_whose_name_starts_like_another(tree: Tree) -> None:
    found = files(tree({"train/a": 1, "train/ab": 1, "train2/c": 1}))
    assert found.folders("train") == ["a", "ab"]
    assert len(found.images("train/a")[0]) == 1


def test_a_file_of_a_splits_name_is_no_split(tree: Tree) -> None:
    root = tree({"train/a": 1})
    (root / "test").write_text("")
    with pytest.raises(DataError, match="no test folder"):
        find_splits(files(root), {"train": ("train",), "test": ("test",)})


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
