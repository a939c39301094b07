"""Cases by the names of files, which are empty here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dxai.datasets.base import DataError
from dxai.datasets.layouts.brats_cases import NO_IMAGE, SEQUENCE, UNLABELLED, find_cases
from dxai.datasets.source import open_source


def found(root: Path, *names: str) -> tuple[dict[str, list[str]], dict[str, tuple[str, ...]]]:
    """Write empty files; return each case's files by name, and those left out by rule."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    cases, dropped = find_cases(open_source(str(root)))
    files = {case: [file.name for file in volumes] for case, volumes in cases.items()}
    return files, {one.rule: one.files for one in dropped}


@pytest.mark.parametrize(
    ("folder", "image", "seg"),
    [
        ("Train/HGG/Brats18_2013_10_1", "Brats18_2013_10_1_flair.nii.gz", "_seg.nii.gz"),
        ("Train/LGG/BraTS19_TCIA01_131_1", "BraTS19_TCIA01_131_1_flair.nii", "_seg.nii"),
        ("BraTS20_Training_001", "BraTS20_Training_001_flair.nii.gz", "_seg.nii"),
        ("BraTS2021_00000", "BraTS2021_00000_flair.nii.gz", "_seg.nii.gz"),
        ("BraTS-GLI-00000-000", "BraTS-GLI-00000-000-t2f.nii.gz", "-seg.nii.gz"),
        ("BraTS-MET-00001-000", "BraTS-MET-00001-000-t2f.nii.gz", "-seg.nii.gz"),
        ("BRATS20_TRAINING_001", "BRATS20_TRAINING_001_FLAIR.NII.GZ", "_Seg.nii.gz"),
        ("brats20_training_001", "BraTS20_Training_001_Flair.nii", "_SEG.NII"),
    ],
)
def test_names_of_the_releases(tmp_path: Path, folder: str, image: str, seg: str) -> None:
    """Other sequences, and a segmentation spelt in other letters, make no difference."""
    case = re.split("[-_](?=flair|t2f)", image, flags=re.IGNORECASE)[0]
    segmentation = f"{folder}/{case.lower()}{seg}"
    others = tuple(f"{folder}/{case}{end}" for end in ("-T1N.nii.gz", "_t1.nii", "_t1ce.nii.gz"))
    assert found(tmp_path, f"{folder}/{image}", segmentation, *others) == (
        {folder: [f"{folder}/{image}", segmentation]},
        {SEQUENCE: others},
    )


def test_segmentation_of_case_355_as_it_is_distributed(tmp_path: Path) -> None:
    folder = "Training/BraTS20_Training_355"
    names = [f"{folder}/BraTS20_Training_355_flair.nii", f"{folder}/W39_1998.09.19_Segm.nii"]
    assert found(tmp_path, *names) == ({folder: names}, {})
    other = f"{folder}/BraTS20_Training_355_seg.nii"
    message = f"{other} and {names[1]} are two files for the segmentation of one case; keep one"
    with pytest.raises(DataError, match=re.escape(message)):
        found(tmp_path, other)


@pytest.mark.parametrize("folder", ["", "siteA/", "a/b/c/"])
def test_cases_side_by_side(tmp_path: Path, folder: str) -> None:
    names = [
        name
        for i in range(4)
        for name in (
            f"{folder}P{i}_flair.nii",
            f"{folder}p{i}_seg.nii",
            f"other/P{i}-seg.nii.gz",
            f"other/P{i}-t2f.nii.gz",
        )
    ]
    files, dropped = found(tmp_path, *names)
    assert files == {
        **{f"{folder}P{i}": [f"{folder}P{i}_flair.nii", f"{folder}p{i}_seg.nii"] for i in range(4)},
        **{f"other/P{i}": [f"other/P{i}-t2f.nii.gz", f"other/P{i}-seg.nii.gz"] for i in range(4)},
    }
    assert not dropped


def test_a_folder_names_the_case_of_files_without_a_name(tmp_path: Path) -> None:
    files, _ = found(tmp_path, "P1/ses-1/flair.nii", "P1/ses-1/seg.nii")
    assert files == {"P1/ses-1": ["P1/ses-1/flair.nii", "P1/ses-1/seg.nii"]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P1_flair.nii", "P1_flair.nii.gz"),
        ("P1-t2f.nii.gz", "P1_flair.nii.gz"),
        ("P1_FLAIR.nii.gz", "p1_flair.nii.gz"),
        ("P1-seg.nii.gz", "P1_seg.nii.gz"),
        ("P1_seg.nii", "P1_seg.nii.gz"),
    ],
)
def test_two_files_for_one_volume_are_both_named(tmp_path: Path, one: str, other: str) -> None:
    role = "segmentation" if "seg" in one else "image"
    message = f": a/{one} and a/{other} are two files for the {role} of one case; keep one"
    with pytest.raises(DataError, match=re.escape(message)):
        found(tmp_path, f"a/{one}", f"a/{other}")


def test_two_cases_of_one_name_are_both_named(tmp_path: Path) -> None:
    message = "P1/P1_flair.nii and P1_flair.nii are two images of the case P1; keep one"
    with pytest.raises(DataError, match=re.escape(message)):
        found(tmp_path, "P1_flair.nii", "P1_seg.nii", "P1/P1_flair.nii", "P1/P1_seg.nii")


def test_what_is_no_case_is_counted_by_name(tmp_path: Path) -> None:
    """Cases without a segmentation, a prediction beside the truth, and a segmentation alone."""
    files, dropped = found(
        tmp_path,
        "P1/P1_flair.nii",
        "P1/P1_seg.nii",
        "P1/P1_unet_seg.nii",
        "P2/P2_seg.nii",
        "Validation/P3/P3_flair.nii",
        "Validation/P4/P4_flair.nii",
        "Validation/P4/P4_t2.nii",
        "notes.txt",
        "P1/P1_flair (1).nii",
    )
    assert files == {"P1": ["P1/P1_flair.nii", "P1/P1_seg.nii"]}
    assert dropped == {
        UNLABELLED: ("Validation/P3/P3_flair.nii", "Validation/P4/P4_flair.nii"),
        NO_IMAGE: ("P1/P1_unet_seg.nii", "P2/P2_seg.nii"),
        SEQUENCE: ("Validation/P4/P4_t2.nii",),
    }


@pytest.mark.parametrize("seg", ["P1_unet_seg.nii", "P01_seg.nii", "W39_1998.09.19_Segm.nii"])
def test_image_and_segmentation_of_other_names_are_both_named(tmp_path: Path, seg: str) -> None:
    """A prediction alone, or a spelling: neither taken for the truth, nor left out."""
    message = f": P1/P1_flair.nii has no segmentation and P1/{seg} no FLAIR volume of its name;"
    with pytest.raises(DataError, match=re.escape(message)):
        found(tmp_path, "P1/P1_flair.nii", f"P1/{seg}", "P2/P2_flair.nii", "P2/P2_seg.nii")


@pytest.mark.parametrize(
    ("names", "there"),
    [
        ((), "0 files;"),
        (
            ("BraTS2021_Training_Data.tar", "README"),
            "2 files, such as BraTS2021_Training_Data.tar;",
        ),
        (("imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz"), "2 files, such as imagesTr/B"),
        (("a.txt", "images/P1_flair.nii", "labels/P1_seg.nii"), "3 files, such as images/P1_flair"),
    ],
)
def test_no_cases(tmp_path: Path, names: tuple[str, ...], there: str) -> None:
    with pytest.raises(DataError, match=f"no cases among {there}.* each case is CASE_flair"):
        found(tmp_path, *names)
