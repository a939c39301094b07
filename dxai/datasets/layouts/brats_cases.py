"""Cases of BraTS, found by the names of their files: an image and a segmentation in one folder."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import PurePosixPath

from dxai.datasets.base import DataError, Dropped, File
from dxai.datasets.source import Source

VOLUME = re.compile(r"(?:(.+)[-_])?(flair|t2f|seg)\.nii(?:\.gz)?", re.IGNORECASE)
OTHER_SEQUENCE = re.compile(r".+[-_]t[12](ce|c|n|gd|w)?\.nii(\.gz)?", re.IGNORECASE)
RENAMED = re.compile(r"W39_1998\.09\.19_Segm\.nii(\.gz)?", re.IGNORECASE), "BraTS20_Training_355"
"""The segmentation of this case of BraTS 2020 as it is distributed."""
PAIR = "CASE_flair.nii.gz (or -t2f) and CASE_seg.nii.gz (or -seg)"
UNLABELLED = "a case without a segmentation"
NO_IMAGE = "a segmentation without a FLAIR volume of its name"
SEQUENCE = "a volume of another sequence than FLAIR"


def find_cases(source: Source) -> tuple[dict[str, tuple[File, File]], list[Dropped]]:
    """Map the name of each case to its image and segmentation, and leave out other volumes.

    No case, two files for one volume, or an image and a segmentation in one folder that both lack
    their counterpart raise `DataError`.
    """
    files = source.files()
    cases: dict[str, tuple[File, File]] = {}
    images: list[File] = []
    segmentations: list[File] = []
    for (folder, _), roles in _by_case(files, source.name).items():
        image, segmentation = roles.get("image"), roles.get("segmentation")
        if image and segmentation:
            key = _key(folder, image.name)
            if key in cases:
                raise DataError(
                    f"{source.name}: {cases[key][0].name} and {image.name} are two images of the "
                    f"case {key}; keep one"
                )
            cases[key] = image, segmentation
        elif image:
            images.append(image)
        elif segmentation:
            segmentations.append(segmentation)
    _check_singles(source.name, images, segmentations)
    if not cases:
        first = [file.name for file in (*images, *segmentations, *files)][:1]
        there = f", such as {first[0]}" if first else ""
        raise DataError(
            f"{source.name}: no cases among {len(files)} files{there}; each case is {PAIR} in one "
            "folder"
        )
    others = [file for file in files if OTHER_SEQUENCE.fullmatch(PurePosixPath(file.name).name)]
    return cases, [
        *Dropped.of(UNLABELLED, (file.name for file in images)),
        *Dropped.of(NO_IMAGE, (file.name for file in segmentations)),
        *Dropped.of(SEQUENCE, (file.name for file in others)),
    ]


def _by_case(files: list[File], where: str) -> dict[tuple[str, str], dict[str, File]]:
    """Map folder and case, in lower case, to its volumes by role; two of one raise `DataError`."""
    found: dict[tuple[str, str], dict[str, File]] = defaultdict(dict)
    for file in files:
        path = PurePosixPath(file.name)
        if parsed := parse_name(path.name):
            case, role = parsed
            other = found[path.parent.as_posix(), case.lower()].setdefault(role, file)
            if other is not file:
                raise DataError(
                    f"{where}: {other.name} and {file.name} are two files for the {role} of one "
                    "case; keep one"
                )
    return found


def parse_name(name: str) -> tuple[str, str] | None:
    """Case and role, `image` or `segmentation`, that a file's name says; None for other files."""
    renamed, case = RENAMED
    if renamed.fullmatch(name):
        return case, "segmentation"
    match = VOLUME.fullmatch(name)
    if not match:
        return None
    return match[1] or "", "segmentation" if match[2].lower() == "seg" else "image"


def _key(folder: str, image: str) -> str:
    """Name of a case: its folder's, and its own where that is another."""
    case, _ = parse_name(PurePosixPath(image).name) or ("", "")
    if case.lower() in ("", PurePosixPath(folder).name.lower()):
        return folder
    return PurePosixPath(folder, case).as_posix()


def _check_singles(where: str, images: list[File], segmentations: list[File]) -> None:
    """Raise `DataError` if an image and a segmentation in one folder may belong together."""
    folders = {PurePosixPath(file.name).parent: file.name for file in reversed(segmentations)}
    for file in images:
        other = folders.get(PurePosixPath(file.name).parent)
        if other is not None:
            raise DataError(
                f"{where}: {file.name} has no segmentation and {other} no FLAIR volume of its "
                "name; if they belong together, give them the same name, as in CASE_flair.nii.gz "
                "and CASE_seg.nii.gz, else move one of them to another folder"
            )
