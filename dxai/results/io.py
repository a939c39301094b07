"""Result tables and training histories as typed rows; the only reader of their CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dxai.results.table_specs import SPECS

Row = dict[str, Any]
"""Maps a column to its value: str, int, float or bool, or None if missing."""
Tables = dict[str, list[Row]]
"""Maps the name of a table to its rows."""


class TableError(ValueError):
    """A missing or damaged table."""


def read_table(path: Path | str) -> list[Row]:
    """Read the rows of a CSV table, typed by the registry; the columns of any other file are text.

    Registered columns that the file lacks are missing values. Raises `TableError` if the file is
    missing, or a value does not have its column's type.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), list(reader.fieldnames or ())
    except FileNotFoundError:
        raise TableError(
            f"{path}: no such table; `dvc repro` or `make benchmark` makes it"
        ) from None
    spec = SPECS.get(path.stem) or next((s for s in SPECS.values() if s.names == names), None)
    types = {column.name: column.type for column in spec.columns} if spec else {}
    # A table of an earlier version lacks columns that were added since.
    columns = dict.fromkeys([*names, *types])
    return [
        {name: _value(row.get(name, ""), types.get(name, "text"), name, path) for name in columns}
        for row in rows
    ]


def read_tables(folder: Path) -> Tables:
    """Read every table of results/tables/."""
    return {name: read_table(folder / f"{name}.csv") for name in SPECS}


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the rows of a training's history.csv, omitting values that were not logged."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: float(text) for name, text in row.items() if text}
            for row in csv.DictReader(file)
        ]


def _value(text: str, type: str, name: str, path: Path) -> Any:
    if type == "text":
        return text or ""
    if not text:
        return None
    try:
        return _CONVERT[type](text)
    except (KeyError, ValueError, OverflowError):
        raise TableError(f"{path}: {name} is {text!r}, not a {type}") from None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


_CONVERT: dict[str, Callable[[str], Any]] = {
    "number": _finite,
    # A column with missing values may have been written as "7.0".
    "count": lambda text: int(float(text)),
    "truth": {"True": True, "False": False}.__getitem__,
}
