"""The tables of CelebA's releases, as text or CSV: attributes, partition, and origins of CelebA-HQ.

Images are named without suffix, because the tables name JPEG files where a release has PNG files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from dxai.datasets.base import SPLITS, DataError, File
from dxai.datasets.source import Source, suffix

ATTRIBUTE = "Male"
CLASSES = ("female", "male")


class Row(NamedTuple):
    """A table's value for an image, and where it stands, for messages."""

    value: str
    where: str  # "FOLDER/FILE, line N: NAME"


def read_classes(source: Source, file: File) -> dict[str, Row]:
    """Map images to their class.

    Text files start with the number of images and the names of the attributes, CSV files with the
    names only; a line per image has its name, and a value per attribute, -1 or 1, or 0 or 1.
    Anything else, or an image for the second time, raises `DataError`.
    """
    lines = list(_lines(source, file))
    count = None if _is_csv(file) else _count(source, file, lines)
    where, names = lines.pop(0) if lines else (f"{source.name}/{file.name}, line 1", [])
    names = names[1:] if _is_csv(file) else names
    if ATTRIBUTE not in names:
        raise DataError(f"{where}: no attribute {ATTRIBUTE} among {_shown(names)}")
    if count not in (None, str(len(lines))):
        raise DataError(f"{source.name}/{file.name}: {len(lines)} images, but line 1 says {count}")
    return _by_image(_classes(lines, names))


def _count(source: Source, file: File, lines: list[tuple[str, list[str]]]) -> str:
    where, row = lines.pop(0) if lines else (f"{source.name}/{file.name}, line 1", [])
    if len(row) != 1 or not row[0].isdecimal():
        raise DataError(f"{where}: the number of images is expected, not {_shown(row)}")
    return _short(row[0])


def _classes(
    lines: Iterable[tuple[str, list[str]]], names: list[str]
) -> Iterator[tuple[str, str, str]]:
    column = 1 + names.index(ATTRIBUTE)
    values: set[str] = set()
    for where, row in lines:
        values |= set(row[1:])
        if len(row) != len(names) + 1 or not (values <= {"-1", "1"} or values <= {"0", "1"}):
            raise DataError(
                f"{where}: a name and {len(names)} of -1, 1 (or of 0, 1) are expected, not "
                f"{_shown(row)}"
            )
        yield where, row[0], CLASSES[row[column] == "1"]


def read_splits(source: Source, file: File) -> dict[str, Row]:
    """Map images to their split: 0 train, 1 validation, 2 test; a CSV file may have a header."""
    lines = _lines(source, file)
    return _by_image(_splits(lines, _is_csv(file)))


def _splits(
    lines: Iterable[tuple[str, list[str]]], may_have_header: bool
) -> Iterator[tuple[str, str, str]]:
    for where, row in lines:
        is_valid = len(row) == 2 and row[1] in ("0", "1", "2")
        if not is_valid and not (may_have_header and len(row) == 2):
            raise DataError(f"{where}: a name and 0, 1 or 2 are expected, not {_shown(row)}")
        may_have_header = False
        if is_valid:
            yield where, row[0], SPLITS[int(row[1])]


def read_origins(source: Source, file: File) -> dict[str, Row]:
    """Map images of CelebA-HQ to those of CelebA: a header, then its number, another and a name."""
    lines = list(_lines(source, file))
    for where, row in lines[1:]:
        if len(row) != 3 or not row[0].isdecimal():
            raise DataError(f"{where}: two numbers and a name are expected, not {_shown(row)}")
    return _by_image((where, row[0], PurePosixPath(row[2]).stem) for where, row in lines[1:])


def _by_image(rows: Iterable[tuple[str, str, str]]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for where, name, value in rows:
        row = Row(value, f"{where}: {_short(name)}")
        if (first := found.setdefault(PurePosixPath(name).stem, row)) is not row:
            raise DataError(f"{row.where} for the second time, as in {first.where}")
    return found


def _is_csv(file: File) -> bool:
    return suffix(file.name) == ".csv"


def _lines(source: Source, file: File) -> Iterator[tuple[str, list[str]]]:
    """Yield the fields of each line that is not blank, with the line's file and number."""
    where = f"{source.name}/{file.name}"
    try:
        text = source.load(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text ({error})") from None
    if not _is_csv(file):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"{where}, line {number}", line.split()
        return
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            if any(row):
                yield f"{where}, line {rows.line_num}", [field.strip() for field in row]
    except csv.Error as error:
        raise DataError(f"{where}, line {rows.line_num}: {error}") from None


def _shown(row: Iterable[str]) -> str:
    return f"'{_short(' '.join(row))}'"


def _short(text: str) -> str:
    """Make a text of a file fit for a message: printable, and not too long."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 40 else f"{text[:40]} .."
