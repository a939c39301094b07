"""CSV files that list images: path, label, split and optionally group.

Files of spreadsheets are read as they are: a byte order mark, a separator other than the comma,
quotes, backslashes in paths, capitals and spaces in the header, and empty rows.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dxai.datasets.base import DataError, File
from dxai.datasets.layouts.class_folders import Files
from dxai.datasets.layouts.spelling import class_name, listed
from dxai.datasets.source import check_plain_path

COLUMNS = ("path", "label", "split")
SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes
    ----------
    file : File
        The image.
    label : str
        Its class.
    split, group : str
        As written; group is empty if there is none.
    where : str
        File and line, for errors.
    """

    file: File
    label: str
    split: str
    group: str
    where: str


def paths_in(data: bytes, where: str, needed: Sequence[str] = COLUMNS) -> Iterator[str]:
    """Yield the paths of a CSV file that are not empty; a malformed line raises `DataError`."""
    for number, cells in _rows(data, where, needed):
        if cells["path"]:
            yield _plain(cells["path"], f"{where}, line {number}")


def read_table(files: Files, table: str, needed: Sequence[str] = COLUMNS) -> Iterator[Row]:
    """Read the rows of a CSV file of the source, which has at least the columns `needed`.

    A path that is not in the source or comes a second time, an empty cell or a malformed line
    raises `DataError`, which names file and line.
    """
    where = f"{files.source.name}/{table}"
    lines: dict[str, int] = {}
    by_form = {unicodedata.normalize("NFC", name): name for name in files.all}
    for number, cells in _rows(files.source.load(files.all[table]), where, needed):
        at = f"{where}, line {number}"
        for column in needed:
            if not cells[column]:
                raise DataError(f"{at}: no {column}")
        path = _plain(cells["path"], at)
        name = by_form.get(unicodedata.normalize("NFC", path))
        if name is None:
            alike = [other for other in files.all if other.lower() == path.lower()]
            hint = f"; there is {alike[0]}" if alike else ""
            raise DataError(f"{at}: {path} does not exist{hint}")
        if lines.setdefault(name, number) != number:
            raise DataError(f"{at}: {path} for the second time (line {lines[name]})")
        label = class_name(cells["label"])
        if not label.isprintable():
            raise DataError(f"{at}: the label {label!r} has characters that cannot be printed")
        yield Row(files.all[name], label, cells.get("split", ""), cells.get("group", ""), at)


def _plain(path: str, where: str) -> str:
    return check_plain_path(path.replace("\\", "/").removeprefix("./"), where)


def _rows(data: bytes, where: str, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the cells of each row by column, and the number of its last line."""
    text = _decode(data, where)
    hint = re.match(rf"sep=([{SEPARATORS}])[\r\n]", text)  # written by a spreadsheet
    header = re.split(r"\r\n|\r|\n", text, maxsplit=2)[1 if hint else 0]
    separator = hint[1] if hint else max(SEPARATORS, key=lambda one: _known(header, one))
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    last = 0
    try:
        if hint:
            next(rows)
        names = _names(next(rows, []))
        _check_names(names, f"{where}, line {max(rows.line_num, 1)}", needed)
        last = rows.line_num
        for row in rows:
            last = rows.line_num
            cells = [cell.strip() for cell in row]
            if any(cells[len(names) :]):
                raise DataError(
                    f"{where}, line {rows.line_num}: {len(cells)} fields, not {len(names)}"
                )
            if any(cells):
                yield (
                    rows.line_num,
                    dict.fromkeys(names, "") | dict(zip(names, cells, strict=False)),
                )
    except csv.Error as error:
        raise DataError(f"{where}, line {last + 1}: {error}") from None


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}, line {line}: not UTF-8; save the table as CSV UTF-8") from None


def _names(header: list[str]) -> list[str]:
    return [class_name(name).casefold() for name in header]


def _known(header: str, separator: str) -> int:
    """Count the columns that a header has if a character separates them."""
    try:
        row = next(csv.reader([header.strip()], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return 0
    return len(set(COLUMNS) & set(_names(row)))


def _check_names(names: list[str], where: str, needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"{where}: no column {', '.join(missing)}, there is {listed(names)}; the header names "
            f"{', '.join(needed)} and, optionally, group"
        )
    for name in (*COLUMNS, "group"):
        if names.count(name) > 1:
            raise DataError(f"{where}: {names.count(name)} columns {name}")
