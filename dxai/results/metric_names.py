"""The cells of the result tables by name: MLflow's metrics, and what two runs are compared by.

`auc/<dataset>/<classifier>/<method>` (Table 1), `deletion/..` (2), `cross/<dataset>/<trained>/
<scorer>` (3), `std/..` and `std_normalised/..` at a training step (4), `accuracy/<dataset>/
<classifier>` (6). A name says nothing of seed, profile or code, so that runs line up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dxai.results.methods import OURS

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]
"""Name of a table to its rows; values are numbers, or text that spells them."""


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes
    ----------
    name : str
        As in MLflow.
    value : float
        The mean over seeds.
    low, high : float, optional
        The 95% interval over images, its ends averaged over seeds.
    step : int
        Step of the training (Table 4), else 0.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    step: int = 0


@dataclass(frozen=True)
class Column:
    """A column of a table whose numbers are cells."""

    metric: str
    table: str
    place: tuple[str, ...]
    value: str
    bounds: str
    better: str = "lower"


METHOD = ("dataset", "classifier", "method")
COLUMNS = (
    Column("auc", "table1", METHOD, "auc", "auc"),
    Column("deletion", "table2", METHOD, "auc_deletion", "auc_deletion"),
    Column("cross", "table3", ("dataset", "trained", "scorer"), "auc", "auc"),
    Column("std", "table4", METHOD, "std", "std"),
    Column("std_normalised", "table4", METHOD, "normalised", "normalised"),
    Column("accuracy", "table6", ("dataset", "classifier"), "test_accuracy", "accuracy", "higher"),
)
TABLES = tuple(dict.fromkeys(column.table for column in COLUMNS))
"""The tables that have cells."""


def cells(tables: Tables) -> list[Cell]:
    """Every cell of these tables, in their order; what has no number is left out.

    Of a method with several sign rules the first has the method's name, which is the row of the
    paper; the others are `<method>-<sign>`.
    """
    return [cell for column in COLUMNS for cell in _of_column(column, tables.get(column.table, []))]


def worse(name: str, difference: float) -> bool:
    """Whether a cell that changed by `difference` says that we got worse.

    Of a method that is not ours, and of ours scored by a classifier that it was not trained for,
    no value is better than another.
    """
    metric, *place = name.split("/")
    column = next(column for column in COLUMNS if column.metric == metric)
    if column.place == METHOD and place[-1] != OURS:
        return False
    if metric == "cross" and place[1] != place[2]:
        return False
    return difference > 0 if column.better == "lower" else difference < 0


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def plain(text: Any) -> str:
    """Text in the letters that MLflow's names take: letters, digits and `_ - . /`."""
    return re.sub(r"[^\w./-]", "_", str(text))


def _of_column(column: Column, rows: Iterable[Row]) -> list[Cell]:
    found: dict[tuple[str, int], list[Row]] = {}
    signs: dict[str, str] = {}
    for row in rows:
        name = "/".join([column.metric, *(plain(row[part]) for part in column.place)])
        sign = row.get("sign") or ""
        if signs.setdefault(name, sign) != sign:
            name += f"-{sign}"
        if number(row.get(column.value)) is not None:
            found.setdefault((name, int(number(row.get("step")) or 0)), []).append(row)
    return [
        Cell(
            name,
            fmean(float(row[column.value]) for row in members),
            _mean(row.get(f"{column.bounds}_low") for row in members),
            _mean(row.get(f"{column.bounds}_high") for row in members),
            step,
        )
        for (name, step), members in found.items()
    ]


def _mean(values: Iterable[Any]) -> float | None:
    """The mean, or None if one of them is missing."""
    found = [number(value) for value in values]
    known = [value for value in found if value is not None]
    return fmean(known) if len(known) == len(found) else None
