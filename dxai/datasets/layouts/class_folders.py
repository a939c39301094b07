"""Class folders and reading, shared by the layouts with one image per file.

Every file of a source is used, or counted with the reason why it is not.

A source may hold an image's class-distinct content under the image's own path:
`truth/mask/<path>.png`, white where it is, or `truth/neutral/<path>.png`, the image without it.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import SPLITS, DataError, Dropped, File, Listing, Load, Sample, Unit
from dxai.datasets.images import EXTENSIONS, open_image, open_mask, square
from dxai.datasets.layouts.spelling import class_name, fold, listed
from dxai.datasets.source import Source, suffix
from dxai.datasets.splits import HoldOutOptions, by_split, hold_out

TRUTH = ("mask", "neutral")
NO_IMAGE = "no image by its suffix"
LOOSE = "straight in a split's folder, in no class folder"
OUTSIDE = "outside the splits' folders"
NEEDED = {"train", "test"}

Aliases = Mapping[str, Sequence[str]]
"""Split to the valid names of its folder, in lower case."""


class Files:
    """Files of a source by folder; the source is listed once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.all = {file.name: file for file in source.files()}
        self.tree: dict[str, list[File]] = defaultdict(list)
        """Folder to all files below it; the source itself is the empty name."""
        self._folders: dict[str, set[str]] = defaultdict(set)
        for name, file in self.all.items():
            folder = name.rpartition("/")[0]
            self._add(folder)
            self.tree[""].append(file)
            while folder:
                self.tree[folder].append(file)
                folder = folder.rpartition("/")[0]
        for folder in source.empty:
            self._add(folder)

    def _add(self, folder: str) -> None:
        while folder:
            above, _, name = folder.rpartition("/")
            self._folders[above].add(name)
            folder = above

    def folders(self, within: str = "") -> list[str]:
        """Names of the folders in a folder, including empty ones."""
        return sorted(self._folders.get(within, ()))

    def images(self, folder: str) -> list[File]:
        """Images below a class folder; no image raises `DataError`."""
        images = [file for file in self.tree.get(folder, ()) if is_image(file.name)]
        if not images:
            kinds = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{self.source.name}/{folder}: no images ({kinds}) in this class")
        return images

    def unused(
        self, units: Iterable[Unit], reason: Callable[[str], Dropped | None]
    ) -> tuple[Dropped, ...]:
        """Leave out by name the files that no unit holds.

        ``reason(name)`` says by which rule, and of which split and class an image would be; None
        leaves a file to `dxai.datasets.leftovers`.
        """
        taken = {file.name for unit in units for file in unit.files}
        found: dict[Dropped, list[str]] = defaultdict(list)
        for name in self.all:
            if name not in taken and not name.startswith("truth/") and (why := reason(name)):
                found[why].append(name)
        return tuple(
            replace(why, count=len(names), files=tuple(names)) for why, names in found.items()
        )

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
        data = load(file)
        found = open_mask(data, file.name) if is_mask else open_image(data, file.name, channels)
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
    """Map each split to its folder.

    Split folders lie in the source itself or all in one folder further down, as a download may be
    unpacked. A missing train or test, a split with two folders, or train and test in several
    folders raise `DataError`.
    """
    where, root = files.source.name, ""
    found = _splits_within(files, "", aliases)
    if not found:
        inner = [folder for folder in files.tree if not f"{folder}/".startswith("truth/")]
        roots = [at for at in sorted(inner) if _splits_within(files, at, aliases).keys() >= NEEDED]
        if len(roots) > 1:
            raise DataError(
                f"{where}: train and test folders in {listed(roots)}; set source to one of these"
            )
        root = roots[0] if roots else ""
        found = _splits_within(files, root, aliases)
    for split, folders in found.items():
        if len(folders) > 1:
            raise DataError(
                f"{where}: {' and '.join(folders)} are both folders of {split}; take one"
            )
    for split in ("train", "test"):
        if split not in found:
            names = " or ".join(aliases[split])
            there = listed(files.folders(root))
            raise DataError(f"{where}: no {split} folder (named {names}); there are {there}")
    return {split: found[split][0] for split in SPLITS if split in found}


def _splits_within(files: Files, root: str, aliases: Aliases) -> dict[str, list[str]]:
    """Map each split to the paths of the folders in `root` that may hold it."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in files.folders(root):
        for split, names in aliases.items():
            if folder.strip().lower() in names:
                found[split].append(f"{root}/{folder}".removeprefix("/"))
    return found


def find_classes(
    files: Files, splits: Mapping[str, str], chosen: Sequence[str] | None = None
) -> dict[str, dict[str, str]]:
    """Map each split to its classes and their folders, the same classes in every split.

    Classes are in alphabetical order. An absent chosen class, a class missing from a split or with
    two folders in one, or a single class raises `DataError`.
    """
    root = files.source.name
    found = {split: _class_folders(files, folder) for split, folder in splits.items()}
    train, in_train = f"{root}/{splits['train']}", found["train"]
    if not in_train:
        raise DataError(f"{train}: no class folders")
    if chosen is not None:
        wanted = {class_name(name) for name in chosen}
        for name in sorted(wanted - in_train.keys()):
            raise DataError(f"{train}: no class {name!r}; there are {', '.join(in_train)}")
        found = {split: {k: v for k, v in c.items() if k in wanted} for split, c in found.items()}
        in_train = found["train"]
    for split, classes in found.items():
        for name in sorted(classes.keys() - in_train.keys()):
            hint = _alike(name, in_train)
            raise DataError(f"{root}/{classes[name]}: class {name!r} is absent from train{hint}")
        for name in sorted(in_train.keys() - classes.keys()):
            hint = _alike(name, classes)
            raise DataError(f"{root}/{splits[split]}: class {name!r} of train is absent{hint}")
    if len(in_train) < 2:
        raise DataError(f"{root}: only one class, {min(in_train)!r}; it takes at least two")
    return found


def classes_of(names: Collection[str], folders: Sequence[str]) -> set[str]:
    """Return the class folders with images in the folders of these names, in any case."""
    found = set()
    for name in filter(is_image, names):
        for folder, label in itertools.pairwise(name.split("/")[:-1]):
            if folder.lower() in folders:
                found.add(label)
                break
    return found


def _class_folders(files: Files, top: str) -> dict[str, str]:
    """Map the class names in a split's folder to the paths of their folders."""
    found: dict[str, str] = {}
    for folder in files.folders(top):
        name, path = class_name(folder), f"{top}/{folder}"
        if found.setdefault(name, path) != path:
            raise DataError(
                f"{files.source.name}: {found[name]!r} and {path!r} are the same class; "
                "move the images into one folder"
            )
    return {name: found[name] for name in sorted(found)}


def _alike(name: str, others: Iterable[str]) -> str:
    """Hint at a name that differs from an absent one only in spelling."""
    same = [other for other in others if fold(other) == fold(name)]
    return f"; there is {same[0]!r}" if same else ""


def train_and_test(
    files: Files,
    dataset: DatasetParams,
    prepare: PrepareParams,
    aliases: Aliases,
    classes: Mapping[str, Sequence[str]],
    options: HoldOutOptions,
) -> Listing:
    """List `<split>/<class>/` folders of train and test; validation is held out of train.

    `classes` maps a class to the names that its folder may have, in any spelling; other folders
    are left out and counted.
    """
    splits = find_splits(files, aliases)
    units: list[Unit] = []
    folders: dict[str, tuple[str, str]] = {}  # path to split and class
    for split, top in splits.items():
        there = files.folders(top)
        for label, names in classes.items():
            spelt = {fold(name) for name in names}
            found = [f"{top}/{name}" for name in there if fold(name) in spelt]
            if not found:
                wanted = " or ".join(map(repr, names))
                where = f"{files.source.name}/{top}"
                raise DataError(f"{where}: no class {wanted}; there are {', '.join(there)}")
            if len(found) > 1:
                raise DataError(
                    f"{files.source.name}: {' and '.join(found)} are both class {label!r}; take one"
                )
            folders[found[0]] = (split, label)
            units += [files.unit(file, split, label) for file in files.images(found[0])]
    kinds = {fold(label).split("-")[0] for label in classes}

    def of_others(split: str, name: str, names: Sequence[str]) -> Dropped:
        near = sorted(names, key=lambda other: fold(other).split("-")[0] not in kinds)
        return Dropped(f"other classes: {listed(near)}", 1, split)

    units = hold_out(units, tuple(classes), options.validation, options.seed)
    return Listing(
        tuple(classes),
        by_split(units),
        reader(dataset, prepare),
        options.model_dump(),
        files.unused(units, reason_by_folder(files, splits, folders, of_others)),
    )


def reason_by_folder(
    files: Files,
    splits: Mapping[str, str],
    classes: Mapping[str, tuple[str, str]],
    of_others: Callable[[str, str, Sequence[str]], Dropped],
) -> Callable[[str], Dropped | None]:
    """Make the `reason` of `Files.unused` for `<split>/<class>/` folders.

    `classes` maps the folders in use to split and class. ``of_others(split, name, names)`` is the
    reason for the folder `name`, one of the `names` in a split's folder that are not in use.
    """
    others = {
        top: [name for name in files.folders(top) if f"{top}/{name}" not in classes]
        for top in splits.values()
    }
    root = splits["train"].removesuffix(splits["train"].rpartition("/")[2])

    def reason(name: str) -> Dropped | None:
        for split, top in splits.items():
            folder, inside, _ = name.removeprefix(f"{top}/").partition("/")
            if inside and f"{top}/{folder}" in classes and name.startswith(f"{top}/"):
                return Dropped(NO_IMAGE, 1, *classes[f"{top}/{folder}"])
            if name.startswith(f"{top}/") and is_image(name):
                return of_others(split, folder, others[top]) if inside else Dropped(LOOSE, 1, split)
        if not is_image(name):
            return None
        folder, inside, _ = name.removeprefix(root).partition("/")
        return Dropped(f"in {folder}/, not a split's folder" if inside else OUTSIDE)

    return reason


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return suffix(name) in EXTENSIONS


def reader(
    dataset: DatasetParams, prepare: PrepareParams
) -> Callable[[Unit, Load], Iterator[Sample]]:
    """Bind a dataset's settings to `read_file`."""
    size, channels = prepare.image_size, dataset.channels
    return functools.partial(read_file, image_size=size, channels=channels)
