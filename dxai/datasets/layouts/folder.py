"""Layout `folder`: any user's `<split>/<class>/` tree of image files, or a CSV file naming them.

Split folders are named train or training, val, valid or validation, test or testing, in any case.
Without a validation folder, a share of train is held out. Images may be at any depth below their
class folder; hidden files and folders are skipped. A CSV file named by the option `table` has the
columns path (relative to the source), label, split and optionally group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field, field_validator

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import SPLITS, DataError, Dropped, Layout, Listing, Unit
from dxai.datasets.layouts import class_folders
from dxai.datasets.layouts.class_folders import Files
from dxai.datasets.layouts.image_table import read_table
from dxai.datasets.layouts.spelling import class_name, spelling_notes
from dxai.datasets.samples import shapes
from dxai.datasets.source import Source
from dxai.datasets.splits import HoldOutOptions, by_split, check_group, group_of, hold_out

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
NOT_CHOSEN = "a class that is not among options.classes"


class FolderOptions(HoldOutOptions):
    """Options of the layout `folder`; images are held out where there is no validation folder."""

    validation: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="Share of each class's training images that is held out for validation.",
    )
    group: str | None = Field(
        None,
        description="A regular expression whose captures in an image's path are its group.\n"
        "It is searched in the path relative to `source`, and a group is held out as a whole. "
        "null: images are independent.",
    )
    classes: list[str] | None = Field(
        None, description="The class folders to use; null: all of them."
    )
    table: str | None = Field(
        None,
        description="A CSV file in `source` that lists the images; null: folders decide.\n"
        "Its columns are path (relative to `source`), label, split and optionally group.",
    )

    _check_group = field_validator("group")(check_group)


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images below `source`.

    A missing folder or split, fewer than two classes, a class without images or missing from a
    split, a path without a group, or a faulty line of the table raises `DataError`; an impossible
    option raises `ParamsError`.
    """
    options = parse(FolderOptions, dataset.options, "options")
    files = Files(source)
    units, classes, dropped = (
        _from_table(files, options.table, options)
        if options.table is not None
        else _from_folders(files, options)
    )
    if not any(unit.split == "validation" for unit in units):
        units = hold_out(units, classes, options.validation, options.seed)
    return Listing(
        classes,
        by_split(units),
        class_folders.reader(dataset, prepare),
        options.model_dump(),
        dropped,
        (*_notes(units), *spelling_notes(classes)),
    )


Found = tuple[list[Unit], tuple[str, ...], tuple[Dropped, ...]]


def _from_folders(files: Files, options: FolderOptions) -> Found:
    splits = class_folders.find_splits(files, ALIASES)
    classes = class_folders.find_classes(files, splits, options.classes)
    units, used = [], {}
    for split, folders in classes.items():
        for label, folder in folders.items():
            used[folder] = (split, label)
            units += [
                files.unit(file, split, label, _group(file.name, options.group))
                for file in files.images(folder)
            ]

    def not_chosen(split: str, name: str, names: Sequence[str]) -> Dropped:
        return Dropped(NOT_CHOSEN, 1, split, class_name(name))

    reason = class_folders.reason_by_folder(files, splits, used, not_chosen)
    return units, tuple(classes["train"]), files.unused(units, reason)


def _from_table(files: Files, table: str, options: FolderOptions) -> Found:
    """List the images that a CSV file names; each error names the file's line."""
    where = f"{files.source.name}/{table}"
    if table not in files.all:
        raise DataError(f"{where}: no such file")
    chosen = options.classes and {class_name(name) for name in options.classes}
    units: list[Unit] = []
    others: list[Unit] = []
    for row in read_table(files, table):
        split = _canonical(row.split, row.where)
        group = row.group or _group(row.file.name, options.group)
        unit = files.unit(row.file, split, row.label, group)
        (units if chosen is None or row.label in chosen else others).append(unit)
    classes = tuple(sorted({unit.label for unit in units}))
    for label in sorted((chosen or set()) - set(classes)):
        valid = ", ".join(sorted({unit.label for unit in [*units, *others]}))
        raise DataError(f"{where}: no class {label!r}; there are {valid}")
    if len(classes) < 2:
        raise DataError(f"{where}: {len(classes)} class(es); it takes at least two")
    there = {(unit.split, unit.label) for unit in units}
    for split in SPLITS:
        held_out = split == "validation" and not any(name == split for name, _ in there)
        for label in classes:
            if (split, label) not in there and not held_out:
                raise DataError(f"{where}: class {label!r} has no image in {split}")
    not_chosen = {unit.key: Dropped(NOT_CHOSEN, 1, unit.split, unit.label) for unit in others}

    def reason(name: str) -> Dropped | None:
        not_listed = Dropped(f"not in {table}") if class_folders.is_image(name) else None
        return not_chosen.get(name, not_listed)

    dropped = files.unused(units, reason)
    return units, classes, dropped


def _canonical(split: str, where: str) -> str:
    for name, aliases in ALIASES.items():
        if split.lower() in aliases:
            return name
    valid = ", ".join(name for aliases in ALIASES.values() for name in aliases)
    raise DataError(f"{where}: unknown split {split!r}; valid are {valid}")


def _group(path: str, pattern: str | None) -> str:
    return path if pattern is None else group_of(path, pattern)


def _notes(units: Iterable[Unit]) -> tuple[str, ...]:
    groups: dict[str, set[str]] = {split: set() for split in SPLITS}
    for unit in units:
        groups[unit.split].add(unit.group)
    shared = groups["test"] & (groups["train"] | groups["validation"])
    if not shared:
        return ()
    return (f"{len(shared)} groups of test are also in train, first {min(shared)!r}",)


LAYOUT = Layout(
    find,
    shapes.render_sample,
    "your own images",
    "yours",
    options=FolderOptions,
    fits=lambda names: len(class_folders.classes_of(names, ALIASES["train"])) > 1,
    looks_for="train/CLASS/*.jpg and test/CLASS/*.jpg (or .png and others), of two classes or more",
)
