"""Class folders and reading, shared by the layouts with one image per file.

A source may hold an image's class-distinct content under the image's own path:
`truth/mask/<path>.png`, white where it is, or `truth/neutral/<path>.png`, the image without it.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import SPLITS, DataError, Dropped, File, Listing, Load, Sample, Unit
from dxai.datasets.images import EXTENSIONS, open_image, square
from dxai.datasets.source import Source, suffix
from dxai.datasets.splits import HoldOutOptions, by_split, hold_out

TRUTH = ("mask", "neutral")
NO_IMAGE = "no image by its suffix"

Aliases = Mapping[str, Sequence[str]]
"""Split to the valid names of its folder, in lower case."""


class Files:
    """Files of a source by folder; the source is listed once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.all = {file.name: file for file in source.files()}
        self.tree: dict[str, list[File]] = defaultdict(list)
        """Top folder (`train`) or folder in one (`train/cat`) to all files below it."""
        for name, file in self.all.items():
            parts = name.split("/")
            for depth in range(1, min(len(parts), 3)):
                self.tree["/".join(parts[:depth])].append(file)

    def folders(self, within: str = "") -> list[str]:
        """Names of the top folders, or of those in a top folder, including empty ones."""
        found = {*self.tree, *self.source.empty}
        if not within:
            return sorted({name.split("/")[0] for name in found if name})
        return sorted({name.split("/")[1] for name in found if name.startswith(f"{within}/")})

    def images(self, folder: str) -> tuple[list[File], list[File]]:
        """Images below a class folder and its other files; no image raises `DataError`."""
        images: list[File] = []
        others: list[File] = []
        for file in self.tree[folder]:
            (images if suffix(file.name) in EXTENSIONS else others).append(file)
        if not images:
            kinds = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{self.source.name}/{folder}: no images ({kinds}) in this class")
        return images, others

    def unit(self, file: File, split: str, label: str, group: str | None = None) -> Unit:
        """Unit of an image file, with the ground truth found for it."""
        known = {}
        for kind in TRUTH:
            path = PurePosixPath("truth", kind, file.name).with_suffix(".png").as_posix()
            if path in self.all:
                known[kind] = self.all[path]
        files = (file, *known.values())
        return Unit(file.name, split, files, label, group or file.name, tuple(known))


def read_file(unit: Unit, load: Load, image_size: int, channels: int) -> Iterator[Sample]:
    """Yield the one sample of a unit from `Files.unit`: the centred square of its image."""
    image = open_image(load(unit.files[0]), unit.key, channels)
    known = {}
    for kind, file in zip(unit.about, unit.files[1:], strict=True):
        is_mask = kind == "mask"
        found = open_image(load(file), file.name, 1 if is_mask else channels)
        if found.size != image.size:
            raise DataError(f"{file.name}: {found.size} pixels, its image has {image.size}")
        known[kind] = square(found, image_size, is_mask)
    yield Sample(
        square(image, image_size),
        unit.split,
        unit.label,
        unit.key,
        unit.group,
        unit.key,
        size=image.size,
        **known,
    )


def find_splits(files: Files, aliases: Aliases) -> dict[str, str]:
    """Folder of each split; a missing train or test, or a split with two, raises `DataError`."""
    splits: dict[str, str] = {}
    for folder in files.folders():
        for split, names in aliases.items():
            if folder.lower() in names:
                if split in splits:
                    raise DataError(
                        f"{files.source.name}: {splits[split]} and {folder} mean the same"
                    )
                splits[split] = folder
    for split in ("train", "test"):
        if split not in splits:
            names = " or ".join(aliases[split])
            raise DataError(f"{files.source.name}: no {split} folder (named {names})")
    return {split: splits[split] for split in SPLITS if split in splits}


def find_classes(
    files: Files, splits: Mapping[str, str], chosen: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Class names in alphabetical order, the same in every split.

    An absent chosen class, a class missing from a split, or a single class raises `DataError`.
    """
    root = files.source.name
    names = {split: set(files.folders(folder)) for split, folder in splits.items()}
    train = f"{root}/{splits['train']}"
    if not names["train"]:
        raise DataError(f"{train}: no class folders")
    if chosen is not None:
        for name in chosen:
            if name not in names["train"]:
                valid = ", ".join(sorted(names["train"]))
                raise DataError(f"{train}: no class {name!r}; there are {valid}")
        names = {split: found & set(chosen) for split, found in names.items()}
    for split, found in names.items():
        for name in sorted(found - names["train"]):
            raise DataError(f"{root}/{splits[split]}/{name}: class {name!r} is absent from train")
        for name in sorted(names["train"] - found):
            raise DataError(f"{root}/{splits[split]}: class {name!r} of train is absent")
    if len(names["train"]) < 2:
        raise DataError(f"{root}: only one class, {min(names['train'])!r}; it takes at least two")
    return tuple(sorted(names["train"]))


def classes_of(names: Collection[str], folders: Sequence[str]) -> set[str]:
    """Return the class folders with images in the top folders of these names, in any case."""
    found = (name.split("/") for name in names if suffix(name) in EXTENSIONS)
    return {parts[1] for parts in found if len(parts) > 2 and parts[0].lower() in folders}


def dropped_files(others: Iterable[File], split: str, label: str) -> list[Dropped]:
    """Count files that are not images."""
    return Dropped.of(NO_IMAGE, (file.name for file in others), split, label)


def train_and_test(
    files: Files,
    dataset: DatasetParams,
    prepare: PrepareParams,
    aliases: Aliases,
    classes: Mapping[str, Sequence[str]],
    options: HoldOutOptions,
) -> Listing:
    """List `<split>/<class>/` folders of train and test; validation is held out of train.

    `classes` maps a class to the names that its folder may have; other folders are ignored.
    """
    splits = find_splits(files, aliases)
    units: list[Unit] = []
    dropped: list[Dropped] = []
    for split, top in splits.items():
        there = files.folders(top)
        for label, names in classes.items():
            found = [name for name in names if name in there]
            if not found:
                wanted = " or ".join(map(repr, names))
                where = f"{files.source.name}/{top}"
                raise DataError(f"{where}: no class {wanted}; there are {', '.join(there)}")
            images, others = files.images(f"{top}/{found[0]}")
            units += [files.unit(file, split, label) for file in images]
            dropped += dropped_files(others, split, label)
    units = hold_out(units, tuple(classes), options.validation, options.seed)
    return Listing(
        tuple(classes),
        by_split(units),
        reader(dataset, prepare),
        options.model_dump(),
        tuple(dropped),
    )


def reader(
    dataset: DatasetParams, prepare: PrepareParams
) -> Callable[[Unit, Load], Iterator[Sample]]:
    """Bind a dataset's settings to `read_file`."""
    size, channels = prepare.image_size, dataset.channels
    return functools.partial(read_file, image_size=size, channels=channels)
