"""What the layouts of one image a file share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dxai.datasets import DataError, Unit
from dxai.datasets.class_folders import (
    Files,
    by_split,
    choose_groups,
    dropped_files,
    find_splits,
    hold_out,
    read_file,
)
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


def test_test_goes_first() -> None:
    """So that of two equal files it is not the test image that is dropped."""
    units = [
        Unit(f"{split}{label}{i}", split, (), label)
        for i in range(2)
        for label in "ba"
        for split in ("train", "test", "validation")
    ]
    assert [unit.key for unit in by_split(units)] == [
        *("testa0", "testa1", "testb0", "testb1"),
        *("validationa0", "validationa1", "validationb0", "validationb1"),
        *("traina0", "traina1", "trainb0", "trainb1"),
    ]


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=5),
    share=st.floats(0.02, 0.7),
    seed=st.integers(0, 9),
)
def test_independent_images_are_held_out_by_their_share(
    counts: list[int], share: float, seed: int
) -> None:
    """Of n images the nearest whole number to share x n, at least one."""
    names = [f"class {k}" for k in range(len(counts))]
    sizes = {
        f"{name}/{i}": Counter({name: 1})
        for name, n in zip(names, counts, strict=True)
        for i in range(n)
    }
    held = choose_groups(sizes, names, share, seed)
    for name, n in zip(names, counts, strict=True):
        found = sum(key.startswith(f"{name}/") for key in held)
        assert found == max(1, round(share * n)) or abs(found - share * n) == pytest.approx(0.5)


def test_only_training_images_are_held_out() -> None:
    units = [Unit(f"{s}/{k}/{i}", s, (), k, f"{s}/{k}/{i}") for s in ("train", "test")
             for k in "ab" for i in range(10)]  # fmt: skip
    held = hold_out(units, "ab", 0.3, seed=0)
    assert [unit.key for unit in held] == [unit.key for unit in units]
    assert Counter(unit.split for unit in held) == {"train": 14, "validation": 6, "test": 20}
    assert all(unit.split == "test" for unit in held if unit.key.startswith("test"))


def test_group_of_test_in_train_does_not_move_test() -> None:
    units = [Unit(f"train/{k}/{i}", "train", (), k, f"{k}{i}") for k in "ab" for i in range(4)]
    units += [Unit(f"test/{k}/{i}", "test", (), k, f"{k}{i}") for k in "ab" for i in range(4)]
    held = hold_out(units, "ab", 0.5, seed=0)
    assert Counter(unit.split for unit in held) == {"train": 4, "validation": 4, "test": 8}
