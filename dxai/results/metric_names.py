"""Metrics of the result tables: their names in MLflow, by which two runs are compared.

`auc/<dataset>/<classifier>/<method>` (Table 1), `deletion/..` (2),
`cross/<dataset>/<trained>/<scorer>` (3), `std/..` and `std_normalised/..` at a training step (4),
`accuracy/<dataset>/<classifier>` (6), `undecided/<dataset>/<classifier>/<method>` (Definition 1),
as the registry says. Names omit seed, profile and code, so that runs line up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dxai.results.io import Row
from dxai.results.methods import NEUTRAL, OURS
from dxai.results.table_specs import SPECS, Column, TableSpec


@dataclass(frozen=True)
class MetricValue:
    """A number of a table, by its metric's name in MLflow.

    `value` is the mean over seeds; `low` and `high` are the ends, averaged over seeds, of the 95%
    interval over images. `step` is the training step in Table 4, else 0.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    step: int = 0


METRICS = {
    column.metric: (spec, column)
    for spec in SPECS.values()
    for column in spec.columns
    if column.metric
}
"""Maps the first part of a name to its table and column."""


def tables_with_metrics() -> list[str]:
    return list(dict.fromkeys(spec.name for spec, _ in METRICS.values()))


def metric_values(tables: Mapping[str, Sequence[Row]]) -> list[MetricValue]:
    """Return every metric of these tables, in their order, omitting missing numbers.

    The first sign rule of a method, the row of the paper, has the method's name; the others are
    `<method>-<sign>`.
    """
    return [
        value
        for spec, column in METRICS.values()
        for value in _of_column(spec, column, tables.get(spec.name, []))
    ]


def worse(name: str, difference: float) -> bool:
    """Whether a metric that changed by `difference` says that ours got worse.

    Neither direction is worse for other methods, or for ours scored by a classifier that it was not
    trained for.
    """
    metric, *key = name.split("/")
    spec, column = METRICS[metric]
    named = dict(zip(spec.key, key, strict=False))
    if named.get("method", OURS) not in (OURS, NEUTRAL) or named.get("trained") != named.get(
        "scorer"
    ):
        return False
    return difference > 0 if column.better == "lower" else difference < 0


def number(value: Any) -> float | None:
    """Return a finite number as float; None for anything else."""
    known = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if known else None


def plain(text: Any) -> str:
    """Replace characters that MLflow forbids in a name; letters, digits and `_ - . /` stay."""
    return re.sub(r"[^\w./-]", "_", str(text))


def _of_column(spec: TableSpec, column: Column, rows: Iterable[Row]) -> list[MetricValue]:
    found: dict[tuple[str, int], list[Row]] = {}
    signs: dict[str, str] = {}
    for row in rows:
        name = "/".join([column.metric, *(plain(row[part]) for part in spec.key)])
        sign = row.get("sign") or ""
        if signs.setdefault(name, sign) != sign:
            name += f"-{sign}"
        if number(row.get(column.name)) is not None:
            found.setdefault((name, int(number(row.get("step")) or 0)), []).append(row)
    return [
        MetricValue(
            name,
            fmean(row[column.name] for row in members),
            _mean(row.get(f"{column.bounds}_low") for row in members),
            _mean(row.get(f"{column.bounds}_high") for row in members),
            step,
        )
        for (name, step), members in found.items()
    ]


def _mean(values: Iterable[Any]) -> float | None:
    """Return the mean, or None if a value is missing."""
    found = [number(value) for value in values]
    known = [value for value in found if value is not None]
    return fmean(known) if len(known) == len(found) else None
