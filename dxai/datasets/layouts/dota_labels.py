"""Label files of DOTA: which image each belongs to, and the boxes in it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from dxai.datasets.base import DataError, Dropped
from dxai.datasets.layouts.class_folders import is_image
from dxai.datasets.layouts.spelling import fold, listed
from dxai.datasets.source import suffix

CAR, VEHICLES = "small-vehicle", ("small-vehicle", "large-vehicle")
CATEGORIES = {
    *VEHICLES,
    "airport",
    "baseball-diamond",
    "basketball-court",
    "bridge",
    "container-crane",
    "ground-track-field",
    "harbor",
    "helicopter",
    "helipad",
    "plane",
    "roundabout",
    "ship",
    "soccer-ball-field",
    "storage-tank",
    "swimming-pool",
    "tennis-court",
}
"""Categories of the releases 1.0, 1.5 and 2.0."""
HORIZONTAL = re.compile(r"(reclabeltxt|[-_]hbb)(/|$)", re.IGNORECASE)
"""Folders of upright boxes, which the releases hold beside the rotated ones."""

FARTHEST = 1e7
"""Coordinates beyond this, pixels, are of no image."""

UNLABELLED = "an image without labels"
NO_IMAGE = "labels without an image"
UPRIGHT = "upright boxes, beside the rotated ones"
OTHER_LABELS = "labels outside {}"
META = "an image's date and source, in meta/"


@dataclass(frozen=True)
class Boxes:
    """The boxes of an image."""

    corners: np.ndarray  # float64, (N, 4, 2), x and y in pixels
    is_car: np.ndarray  # bool, (N,)
    is_vehicle: np.ndarray  # bool, (N,)
    unknown: tuple[str, ...] = ()  # categories of no release


def pair(
    names: Iterable[str], folder: str | None, where: str
) -> tuple[list[tuple[str, str]], list[Dropped]]:
    """Pair each image with the text file of its name that is nearest in the tree of folders.

    Parameters
    ----------
    names : iterable of str
        Every file of the source.
    folder : str or None
        Folder of the label files to use, where a source has several.
    where : str
        The source, for errors.

    Returns
    -------
    pairs : list of (str, str)
        Image and label file, in the order of the images.
    dropped : list of Dropped
        Images without labels and labels without an image, or of other folders.

    Raises
    ------
    DataError
        For an image with two label files, or a label file with two images.
    """
    names = [name for name in names if not name.startswith("truth/")]
    images: dict[str, list[str]] = defaultdict(list)
    texts: dict[str, list[str]] = defaultdict(list)
    left_out: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stem = PurePosixPath(name).stem
        if is_image(name):
            images[stem].append(name)
        elif suffix(name) == ".txt" and (rule := _other_folder(name, folder)):
            left_out[rule].append(name)
        elif suffix(name) == ".txt":
            texts[stem].append(name)
    found: dict[str, str] = {}
    for stem, alike in images.items():
        found |= _nearest(alike, texts.get(stem, []), where)
    used = set(found.values())
    folders = {os.path.dirname(name) for name in used}
    left_out[UNLABELLED] = [one for alike in images.values() for one in alike if one not in found]
    left_out[NO_IMAGE] = [
        text
        for alike in texts.values()
        for text in alike
        if text not in used and (os.path.dirname(text) in folders or "labeltxt" in text.lower())
    ]
    dropped = [one for rule, files in left_out.items() for one in Dropped.of(rule, files)]
    if len(found) < 3:
        others = listed(f"{one.count} files ({one.rule}, first {one.files[0]})" for one in dropped)
        raise DataError(
            f"{where}: {len(found)} images with labels (P0001.png and P0001.txt), three splits "
            f"take at least 3; left out are {others}"
        )
    return sorted(found.items()), dropped


def _other_folder(name: str, folder: str | None) -> str | None:
    """Rule that leaves out a label file for its folder."""
    if folder is not None and f"/{folder.strip('/')}/" not in f"/{name}":
        return OTHER_LABELS.format(folder)
    if folder is None and "meta" in name.lower().split("/")[:-1]:
        return META
    upright = HORIZONTAL.search(os.path.dirname(name)) and not HORIZONTAL.search(folder or "")
    return UPRIGHT if upright else None


def _nearest(images: Sequence[str], texts: Sequence[str], where: str) -> dict[str, str]:
    """Pair images and label files of one name, each with the nearest of the others."""
    found: dict[str, str] = {}
    for image in images:
        near = [
            text
            for text in texts
            if _shared(image, text) == max(_shared(image, other) for other in texts)
            and _shared(image, text) == max(_shared(other, text) for other in images)
        ]
        if len(near) > 1:
            folders = " or ".join(_first_difference(near))
            raise DataError(
                f"{where}/{image} has two label files, {near[0]} and {near[1]}; set options.labels "
                f"to the folder to use, {folders}"
            )
        if near and near[0] in found.values():
            other = next(name for name, text in found.items() if text == near[0])
            raise DataError(f"{where}: {other} and {image} have the same label file, {near[0]}")
        if near:
            found[image] = near[0]
    return found


def _shared(one: str, other: str) -> int:
    """Number of folders that two files have in common."""
    both = zip(one.split("/")[:-1], other.split("/")[:-1], strict=False)
    return next(
        (i for i, (a, b) in enumerate(both) if a != b), min(one.count("/"), other.count("/"))
    )


def _first_difference(names: Sequence[str]) -> list[str]:
    """Folders in which the first two paths differ."""
    shared = _shared(names[0], names[1])
    return [name.split("/")[shared] for name in names[:2] if name.count("/") > shared]


def parse_labels(text: str, where: str, difficult: bool = True) -> Boxes:
    """Parse a label file; with `difficult`, boxes marked difficult may be cars.

    `DataError` names the file, `where`, and the line that is neither a header nor a box.
    """
    corners, cars, vehicles, unknown = [], [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.lower().startswith(("imagesource:", "gsd:")):
            continue
        box = _parse_box(words)
        if box is None:
            raise DataError(
                f"{where}, line {number}: eight coordinates, a category and perhaps a difficulty "
                f"are expected, not {line[:80]!r}"
            )
        points, category, hard = box
        corners.append(points)
        cars.append(category == CAR and (difficult or not hard))
        vehicles.append(category in VEHICLES)
        if category not in CATEGORIES:
            unknown.append(category)
    return Boxes(
        np.asarray(corners, np.float64).reshape(-1, 4, 2),
        np.asarray(cars, bool),
        np.asarray(vehicles, bool),
        tuple(unknown),
    )


def _parse_box(words: Sequence[str]) -> tuple[list[float], str, int] | None:
    """Coordinates, category and difficulty; None if the words are none of these."""
    rest, hard = list(words[8:]), 0
    if len(rest) > 1 and re.fullmatch(r"[-+]?\d{1,9}", rest[-1]):
        hard = int(rest.pop())
    category = fold(" ".join(rest))
    # A category that is a number is an extra coordinate; only known ones may be of several words.
    is_category = category in CATEGORIES or (len(rest) == 1 and not _is_number(rest[0]))
    if not is_category or not all(map(_is_number, words[:8])):
        return None
    points = [float(word) for word in words[:8]]
    return (points, category, hard) if np.abs(points).max() < FARTHEST else None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
