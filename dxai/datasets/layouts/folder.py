"""Layout `folder`: any user's `<split>/<class>/` tree of image files, or a CSV file naming them.

Split folders are named train or training, val, valid or validation, test or testing, in any case.
Without a validation folder, a share of train is held out. Images may be at any depth below their
class folder; hidden files and folders are skipped. A CSV file named by `source` has the columns
path (relative to it), label, split and optionally group.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from pydantic import Field, field_validator

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import SPLITS, DataError, Dropped, Layout, Listing, Unit
from dxai.datasets.layouts import class_folders
from dxai.datasets.layouts.class_folders import Files
from dxai.datasets.samples import shapes
from dxai.datasets.source import Source, check_name
from dxai.datasets.splits import HoldOutOptions, by_split, check_group, group_of, hold_out

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
COLUMNS = ("path", "label", "split")


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

    _check_group = field_validator("group")(check_group)


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images below `source`.

    A missing folder or split, fewer than two classes, a class without images or missing from a
    split, or a path without a group raises `DataError`; an impossible option raises `ParamsError`.
    """
    options = parse(FolderOptions, dataset.options, "options")
    files = Files(source)
    if source.table is None:
        units, classes, dropped = _from_folders(files, options)
    else:
        units, classes, dropped = _from_table(files, source.table, options)
    if not any(unit.split == "validation" for unit in units):
        units = hold_out(units, classes, options.validation, options.seed)
    return Listing(
        classes,
        by_split(units),
        class_folders.reader(dataset, prepare),
        options.model_dump(),
        tuple(dropped),
        _notes(units),
    )


def _from_folders(
    files: Files, options: FolderOptions
) -> tuple[list[Unit], tuple[str, ...], list[Dropped]]:
    splits = class_folders.find_splits(files, ALIASES)
    classes = class_folders.find_classes(files, splits, options.classes)
    units, dropped = [], []
    for split, top in splits.items():
        for label in classes:
            images, others = files.images(f"{top}/{label}")
            units += [
                files.unit(file, split, label, _group(file.name, options.group)) for file in images
            ]
            dropped += class_folders.dropped_files(others, split, label)
    return units, classes, dropped


def _from_table(
    files: Files, table: str, options: FolderOptions
) -> tuple[list[Unit], tuple[str, ...], list[Dropped]]:
    """Read the images that a CSV file names; each error names the file's line."""
    where = f"{files.source.name}/{table}"
    if table not in files.all:
        raise DataError(f"{where}: no such file")
    units: list[Unit] = []
    dropped: list[Dropped] = []
    lines: dict[str, int] = {}
    for number, row in _rows(files.source.load(files.all[table]), where):
        place = f"{where}, line {number}"
        name, label = check_name(row["path"] or "", place), row["label"] or ""
        if name not in files.all:
            raise DataError(f"{place}: {name} does not exist")
        if lines.setdefault(name, number) != number:
            raise DataError(f"{place}: {name} for the second time (line {lines[name]})")
        if not label:
            raise DataError(f"{place}: no label")
        split = _canonical(row["split"] or "", place)
        if options.classes is not None and label not in options.classes:
            dropped += Dropped.of("a class that is not among options.classes", [name], split, label)
            continue
        group = row.get("group") or _group(name, options.group)
        units.append(files.unit(files.all[name], split, label, group))
    classes = tuple(sorted({unit.label for unit in units}))
    for label in options.classes or ():
        if label not in classes:
            valid = ", ".join(sorted({*classes, *(one.label for one in dropped)}))
            raise DataError(f"{where}: no class {label!r}; there are {valid}")
    if len(classes) < 2:
        raise DataError(f"{where}: {len(classes)} class(es); it takes at least two")
    there = {(unit.split, unit.label) for unit in units}
    for split in SPLITS:
        held_out = split == "validation" and not any(name == split for name, _ in there)
        for label in classes:
            if (split, label) not in there and not held_out:
                raise DataError(f"{where}: class {label!r} has no image in {split}")
    return units, classes, dropped


def _rows(data: bytes, where: str) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield the rows of a CSV file, each with the number of its last line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error})") from None
    rows = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        names = rows.fieldnames or ()
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            takes = ", ".join(COLUMNS)
            raise DataError(f"{where}: no column {', '.join(missing)}; it takes {takes}")
        for row in rows:
            if "" in row and "" not in names:
                fields = len(names) + len(row[""])
                raise DataError(f"{where}, line {rows.line_num}: {fields} fields, not {len(names)}")
            yield rows.line_num, row
    except csv.Error as error:
        raise DataError(f"{where}, line {rows.line_num + 1}: {error}") from None


def _canonical(split: str, place: str) -> str:
    for name, aliases in ALIASES.items():
        if split.lower() in aliases:
            return name
    valid = ", ".join(name for aliases in ALIASES.values() for name in aliases)
    raise DataError(f"{place}: unknown split {split!r}; valid are {valid}")


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
    fits=lambda names: bool(class_folders.classes_of(names, ALIASES["train"])),
    looks_for="train/CLASS/*.jpg and test/CLASS/*.jpg (or .png and others)",
)
