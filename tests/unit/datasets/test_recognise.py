"""Recognition of layouts: each from the names of its own files, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dxai.datasets.base import DataError
from dxai.datasets.recognise import fitting, recognise
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.source import open_source
from tests.unit.datasets.conftest import Drawn
from tests.unit.datasets.releases import RELEASES
from tests.unit.datasets.test_releases import rows

Tree = Callable[..., Path]
RECOGNISED = [name for name, layout in LAYOUTS.items() if layout.fits is not None]
TRAINED = ["train/a/1.png", "train/b/2.jpg", "test/a/3.png", "test/b/4.png"]


def test_every_layout_but_those_that_fit_anything_can_be_recognised() -> None:
    assert set(LAYOUTS) - set(RECOGNISED) == {"noise", "textures"}
    assert all(LAYOUTS[name].looks_for for name in RECOGNISED)


@pytest.mark.parametrize("layout", RECOGNISED)
def test_a_sample_is_recognised_as_its_own_layout(drawn: Drawn, layout: str) -> None:
    assert recognise(open_source(str(drawn(layout))))[0] == layout


@pytest.mark.parametrize(
    ("name", "entry"), [pytest.param(name, entry, id=name) for name, _, entry in rows()]
)
def test_every_release_is_recognised_as_it_lies(name: str, entry: str, tmp_path: Path) -> None:
    RELEASES[name](tmp_path)
    wanted = yaml.safe_load(entry)
    if "table" in wanted.get("options", {}):
        with pytest.raises(DataError, match=r"if images\.csv lists the images, name that file"):
            recognise(open_source(str(tmp_path)))
    elif wanted["layout"] == "noise":
        with pytest.raises(DataError, match="fits a layout"):
            recognise(open_source(str(tmp_path)))
    else:
        assert recognise(open_source(str(tmp_path)))[0] == wanted["layout"]


@pytest.mark.parametrize(
    ("names", "layouts"),
    [
        (TRAINED, ["folder"]),
        ([name.replace("train", "Training") for name in TRAINED], ["folder"]),
        (["train/cat/1.png", "train/dog/1.png", "train/wild/1.png"], ["afhq", "folder"]),
        # One more class: a release of something else.
        ([f"train/{c}/1.png" for c in ("cat", "dog", "wild", "bird")], ["folder"]),
        (["train/female/1.png", "train/male/1.png"], ["celeba", "folder"]),
        (["a/b/images/P1.png", "a/b/labelTxt/P1.txt"], ["dota"]),
        (["deep/CASE/CASE_seg.nii.gz", "deep/CASE/CASE_flair.nii.gz"], ["brats"]),
        (["P1_FLAIR.nii", "P1_Seg.nii", "P2_FLAIR.nii", "P2_Seg.nii"], ["brats"]),
        (["img_align_celeba/img_align_celeba/1.jpg", "list_attr_celeba.csv"], ["celeba"]),
        (["CelebA-HQ-img/0.jpg", "CelebAMask-HQ-attribute-anno.txt"], ["celeba"]),
        (["a/1.png", "b/2.png"], []),
        (["train/a/notes.txt"], []),
        (["train/1.png", "test/1.png"], []),
        (["train/a/1.png", "test/a/1.png"], []),
        (["train/images/1.png", "train/labelTxt/1.txt"], ["dota"]),
        ([], []),
    ],
)
def test_what_fits(names: list[str], layouts: list[str]) -> None:
    assert fitting(names) == layouts


def test_nothing_that_fits_lists_what_was_looked_for(tree: Tree) -> None:
    with pytest.raises(DataError, match="none of its 2 files fits a layout") as error:
        recognise(open_source(str(tree({"cats": 1, "dogs": 1}))))
    assert all(f"{name}: {LAYOUTS[name].looks_for}" in str(error.value) for name in RECOGNISED)
    assert "\n" not in str(error.value)
    assert "if its folders (cats, dogs) are classes, move them to train/" in str(error.value)


def test_two_releases_in_one_folder_are_named(tree: Tree) -> None:
    root = tree({"images": 1, "train/female": 1, "train/male": 1})
    (root / "labelTxt").mkdir()
    (root / "labelTxt" / "000.txt").write_text("")
    with pytest.raises(DataError, match=r"celeba \(.*dota \(.*--layout"):
        recognise(open_source(str(root)))


def test_a_folder_around_the_right_one_is_recognised(tree: Tree) -> None:
    root = tree({"archive/train/a": 1, "archive/train/b": 1, "notes": 1})
    assert recognise(open_source(str(root))) == ["folder"]
