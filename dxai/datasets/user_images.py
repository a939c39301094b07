"""Labelled images as a user has them: a folder, a CSV file, a dataset of torch, or a loader.

Nothing is written and no split has to exist: where there are no validation images, some are held
out of the training images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dxai.datasets.base import DataError, Unit
from dxai.datasets.images import open_image, square
from dxai.datasets.in_memory import InMemoryImages
from dxai.datasets.layouts.class_folders import Files, is_image
from dxai.datasets.layouts.folder import ALIASES
from dxai.datasets.layouts.image_table import paths_in, read_table
from dxai.datasets.layouts.spelling import class_name, listed
from dxai.datasets.pictures import NEAR, Range, as_array, picture
from dxai.datasets.source import LocalSource, open_source
from dxai.datasets.splits import hold_out
from dxai.utils.progress import Progress

SHARE = 0.15
"""Share of each class's training images that is held out where there are no validation images."""
MOST_IMAGES, MOST_BYTES = 20_000, 1 << 30
"""Most images that are read, and most bytes of pixels that are held; spread over the classes."""
TABLE = ("path", "label")
"""Columns that a CSV file must have; `split` and `group` are optional."""


@dataclass(frozen=True)
class UserImages:
    """Labelled images that were found; most of them are not read yet.

    Attributes
    ----------
    where : str
        The user's name for them.
    class_names : tuple of str
        In the order of the labels.
    units : tuple of Unit
        An entry per image: its key, split (`train`, `validation` or `test`) and class.
    open : callable
        ``open(unit, channels)`` reads one as a Pillow image of mode L or RGB.
    notes : tuple of str
        What the user should know.
    """

    where: str
    class_names: tuple[str, ...]
    units: tuple[Unit, ...]
    open: Callable[[Unit, int], Image.Image]
    notes: tuple[str, ...] = field(default=())

    def split(self, name: str) -> list[Unit]:
        """Return the units of a split."""
        return [unit for unit in self.units if unit.split == name]

    @property
    def side(self) -> int:
        """Side of the largest square in the first image, pixels."""
        return min(self.open(self.units[0], 3).size)


@dataclass(frozen=True)
class Scaling:
    """The normalisation of tensors that a user's dataset or loader yields.

    Attributes
    ----------
    mean, std : sequence of float
        Subtracted from values in `value_range` and divided by; empty if they are not normalised.
    """

    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    value_range: Range = (0.0, 1.0)

    def undo(self, pixels: np.ndarray) -> np.ndarray:
        """Return normalised values (.., C) in `value_range`."""
        return pixels * np.asarray(self.std or (1.0,)) + np.asarray(self.mean or (0.0,))


def find_images(
    images: Any, class_names: Sequence[str] | None = None, scaling: Scaling | None = None
) -> UserImages:
    """Find labelled images, without reading those that are files.

    Parameters
    ----------
    images
        A folder with a folder for each class, or with those in `train`, `validation` and `test`; a
        CSV file with the columns path, label and, optionally, split and group; a dataset with
        `samples` and `classes`, as torchvision's ImageFolder has, whose files are read as they are;
        any other dataset or loader of (image, label); or a pair of both.
    class_names : sequence of str, optional
        Names of the integer labels of a dataset or loader that has no `classes`.
    scaling : Scaling, optional
        How its tensors may be normalised.

    Raises
    ------
    DataError
        In one line, if there are no such images, or fewer than two classes.
    """
    if isinstance(images, str | os.PathLike):
        found = _from_source(os.fspath(images))
    else:
        images = _unwrapped(images)
        if hasattr(images, "samples") and hasattr(images, "classes"):
            found = _from_samples(images)
        else:
            found = _from_pairs(images, class_names, scaling or Scaling())
    if not found.units:
        raise DataError(f"{found.where}: no image; expected images of two classes or more")
    if len({unit.label for unit in found.units}) < 2:
        raise DataError(
            f"{found.where}: only one class, {found.units[0].label!r}; it takes at least two"
        )
    return found


def with_validation(found: UserImages) -> UserImages:
    """Hold validation images out of the training images, unless there are some."""
    units = found.units
    if not any(unit.split == "validation" for unit in units):
        classes = sorted({unit.label for unit in units if unit.split == "train"})
        units = tuple(hold_out(units, classes, SHARE, seed=0))
    return UserImages(found.where, found.class_names, units, found.open, found.notes)


def read(
    found: UserImages, units: Sequence[Unit], size: int, channels: int, title: str
) -> tuple[InMemoryImages, int]:
    """Read images, cut their largest centred squares and resize them; print progress.

    Returns them, and how many were left out because they are more than fit (`MOST_IMAGES`,
    `MOST_BYTES`): then the same number of each class is taken, spread evenly.
    """
    most = min(MOST_IMAGES, MOST_BYTES // (size * size * channels))
    chosen = _spread(units, most)
    shape = (size, size) if channels == 1 else (size, size, channels)
    pixels = np.empty((len(chosen), *shape), np.uint8)
    progress = Progress(title, len(chosen), unit="images")
    pool = ThreadPoolExecutor(os.cpu_count() or 1, "reader")  # decoders release the GIL
    try:
        for i, image in enumerate(
            pool.map(lambda unit: square(found.open(unit, channels), size), chosen)
        ):
            pixels[i] = image
            progress.update(i + 1)
    finally:
        pool.shutdown(cancel_futures=True)
    index = {name: k for k, name in enumerate(found.class_names)}
    labels = np.array([index[unit.label] for unit in chosen], np.int64)
    data = InMemoryImages(pixels, labels, [unit.key for unit in chosen], found.class_names)
    return data, len(units) - len(chosen)


def _spread(units: Sequence[Unit], most: int) -> list[Unit]:
    """Return at most `most` units, an equal number of each class where they are too many."""
    if len(units) <= most:
        return list(units)
    by_label: dict[str, list[Unit]] = {}
    for unit in units:
        by_label.setdefault(unit.label, []).append(unit)
    each, found = max(1, most // len(by_label)), []
    for same in by_label.values():
        at = np.linspace(0, len(same) - 1, min(each, len(same))).round().astype(int)
        found += [same[i] for i in at]
    return found


# ------------------------------------------------------------------------------------- files
def _from_source(text: str) -> UserImages:
    """Find the images of a folder, a URL or a CSV file."""
    path = Path(text).expanduser()
    if "://" in text:
        folder, table = text, ""
    elif not path.exists():
        raise DataError(f"{text}: no such file or folder")
    elif path.is_file():
        if path.suffix.lower() != ".csv":
            raise DataError(f"{text}: a file; expected a folder of class folders, or a CSV file")
        folder, table = str(path.parent), path.name
    else:
        folder, table = str(path), ""
    files = Files(_source_of_table(path) if table else open_source(folder))
    units = _units_of_table(files, table) if table else _units_of_folders(files, text)
    labels = sorted({unit.label for unit in units})
    notes = []
    others = len(files.all) - len(units) - bool(table)
    if others:
        notes.append(f"{text}: {others} other files are not read")
    read_unit = _Reader(files)
    return UserImages(text, tuple(labels), tuple(units), read_unit, tuple(notes))


def _source_of_table(table: Path) -> LocalSource:
    """Return the files that a table names: beside it may lie anything, such as a whole home."""
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(f"{table}: cannot be read ({error.strerror or error})") from error
    return LocalSource(table.parent, [table.name, *paths_in(data, str(table), TABLE)])


@dataclass(frozen=True)
class _Reader:
    """Read a file of a source as a picture."""

    files: Files

    def __call__(self, unit: Unit, channels: int) -> Image.Image:
        return open_image(self.files.source.load(unit.files[0]), unit.key, channels)


def _units_of_table(files: Files, table: str) -> list[Unit]:
    units = []
    for row in read_table(files, table, TABLE):
        split = _split_named(row.split or "train")
        if split is None:
            valid = ", ".join(name for names in ALIASES.values() for name in names)
            raise DataError(f"{row.where}: unknown split {row.split!r}; valid are {valid}")
        group = row.group or row.file.name
        units.append(Unit(row.file.name, split, (row.file,), row.label, group))
    return units


def _units_of_folders(files: Files, where: str) -> list[Unit]:
    """List `<class>/`, or `<split>/<class>/`, of a source."""
    tops = {folder: _split_named(folder) for folder in files.folders()}
    splits = {split: f"{folder}/" for folder, split in tops.items() if split is not None}
    if "train" not in splits:
        splits = {"train": ""}
    units = []
    for split, top in splits.items():
        for folder in files.folders(top.rstrip("/")):
            if not top and folder == "truth":
                continue
            images = [file for file in files.tree[top + folder] if is_image(file.name)]
            label = class_name(folder)
            units += [Unit(file.name, split, (file,), label, file.name) for file in images]
    if len({unit.label for unit in units}) < 2:
        there = listed(files.folders())
        raise DataError(
            f"{where}: no images of two classes; expected {where}/CLASS/*.jpg or "
            f"{where}/train/CLASS/*.jpg (or .png and others), there are the folders {there}"
        )
    return units


def _split_named(name: str) -> str | None:
    spelt = name.strip().lower()
    return next((split for split, names in ALIASES.items() if spelt in names), None)


# ------------------------------------------------------------------------------------- torch
def _unwrapped(images: Any) -> Any:
    """Return the dataset behind a loader that visits all of it, for its order and its files."""
    dataset, sampler = getattr(images, "dataset", None), getattr(images, "sampler", None)
    whole = type(sampler).__name__ in ("RandomSampler", "SequentialSampler")
    return dataset if whole and hasattr(dataset, "__getitem__") else images


def _from_samples(dataset: Any) -> UserImages:
    names = tuple(map(str, dataset.classes))
    where = str(getattr(dataset, "root", type(dataset).__name__))
    units = [
        Unit(str(path), "train", (), names[int(label)], str(path))
        for path, label in dataset.samples
    ]
    return UserImages(where, names, tuple(units), _open_path)


def _open_path(unit: Unit, channels: int) -> Image.Image:
    return picture(unit.key, channels)


def _from_pairs(images: Any, class_names: Sequence[str] | None, scaling: Scaling) -> UserImages:
    """Read a dataset or loader of (image, label), as far as it fits, at its own size."""
    where = type(images).__name__
    kept: list[Any] = []
    labels: list[int] = []
    held = 0
    full = False
    for image, label in _pairs(images, where):
        if isinstance(image, str | Path | Image.Image):
            kept.append(image)
        else:
            kept.append(as_array(image, f"{where}: image {len(kept)}"))
        held += getattr(kept[-1], "nbytes", 0)
        labels.append(label)
        if full := (len(kept) >= MOST_IMAGES or held >= MOST_BYTES):
            break
    kept = _scaled(kept, scaling, where)
    names = _names_of(images, class_names, labels, where)
    units = [
        Unit(f"{k:06d}", "train", (), names[label], f"{k:06d}", (k,))
        for k, label in enumerate(labels)
    ]
    notes = (f"{where}: the first {len(kept)} images are read",) if full else ()

    def open_kept(unit: Unit, channels: int) -> Image.Image:
        (k,) = unit.about
        return picture(kept[k], channels, (0.0, 1.0), f"{where}: image {k}")

    return UserImages(where, names, tuple(units), open_kept, notes)


def _pairs(images: Any, where: str) -> Iterator[tuple[Any, int]]:
    """Yield each image and label of a dataset, a loader, or a pair (images, labels)."""
    if isinstance(images, tuple) and len(images) == 2:
        images = [images]
    is_dataset = hasattr(images, "__getitem__") and not isinstance(images, list)
    items: Iterable[Any] = (
        (images[i] for i in range(len(images)))
        if is_dataset and hasattr(images, "__len__")
        else images
    )
    try:
        iterator = iter(items)
    except TypeError:
        raise DataError(
            f"found {where}; expected a folder, a CSV file, a dataset or a loader of (image, label)"
        ) from None
    for item in iterator:
        if not isinstance(item, tuple | list) or len(item) < 2:
            kind = type(item).__name__
            raise DataError(f"{where}: yields {kind}; expected pairs (image, label)")
        image, label = item[0], item[1]
        if np.ndim(label) == 0 and not isinstance(label, str):
            yield image, int(label)
        elif len(image) != len(label):
            raise DataError(f"{where}: {len(image)} images and {len(label)} labels in a batch")
        else:
            yield from zip(image, (int(one) for one in label), strict=True)


def _scaled(kept: list[Any], scaling: Scaling, where: str) -> list[Any]:
    """Bring floating-point arrays into [0, 1], by one rule for all of them."""
    floats = [i for i, one in enumerate(kept) if getattr(one, "dtype", np.uint8) != np.uint8]
    if not floats:
        return kept
    least = min(float(kept[i].min()) for i in floats)
    most = max(float(kept[i].max()) for i in floats)
    low, high = -1.0 if least < -NEAR else 0.0, 1.0
    change: Callable[[np.ndarray], np.ndarray] = lambda a: a  # noqa: E731
    if most > 1 + NEAR or least < -1 - NEAR:
        low, high = scaling.value_range
        undone = [scaling.undo(kept[i]) for i in floats]
        least = min(float(one.min()) for one in undone)
        most = max(float(one.max()) for one in undone)
        change = scaling.undo
    if not (least >= low - NEAR and most <= high + NEAR):
        raise DataError(
            f"{where}: values span [{least:.3g}, {most:.3g}]; expected uint8, [0, 1] or [-1, 1], "
            "or give the mean and std with which they are normalised"
        )
    result = list(kept)
    for i in floats:
        result[i] = ((change(kept[i]) - low) / (high - low)).clip(0, 1)
    return result


def _names_of(
    images: Any, class_names: Sequence[str] | None, labels: Sequence[int], where: str
) -> tuple[str, ...]:
    """Return the names of integer labels: those of the dataset, those given, or numbers."""
    inner = getattr(images, "dataset", None)  # of a Subset
    known = getattr(images, "classes", None) or getattr(inner, "classes", None) or class_names
    names = [*map(str, known)] if known else [str(k) for k in range(max(labels, default=0) + 1)]
    if labels and not 0 <= min(labels) <= max(labels) < len(names):
        raise DataError(
            f"{where}: labels from {min(labels)} to {max(labels)}, but {len(names)} classes; name "
            "them all, in the order of the labels"
        )
    return tuple(names)
