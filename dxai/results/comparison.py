"""Differences between two runs: settings, data, code, and every cell of their tables.

A change is compared with the 95% intervals that both runs logged: with half widths h1 and h2, a
difference is outside if it exceeds sqrt(h1^2 + h2^2). By chance 5% of all cells do, if the runs
drew their test images independently, and fewer if they share them, as most runs do: the rule is
cautious. The intervals are over images, not trainings, so they exclude the effect of another seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from dxai.results.metric_names import MetricValue, worse


class Verdict(Enum):
    """How two values of a cell differ, the most important first."""

    OUTSIDE = "outside"
    UNKNOWN = "no interval"
    WITHIN = "within"
    BEFORE = "only before"
    AFTER = "only after"
    SAME = "same"


@dataclass(frozen=True)
class LoggedRun:
    """MLflow's data about a run.

    Attributes
    ----------
    id, name, started : str
        As in MLflow; the last is the time of logging.
    params : mapping
        Settings under dotted names.
    data : mapping
        Dataset to a hash of its prepared files.
    commit : str, optional
        Of the code.
    dirty : bool, optional
        Whether files differed from the commit.
    cells : sequence of MetricValue
        Of its tables.
    """

    id: str
    name: str
    started: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    cells: Sequence[MetricValue] = ()


@dataclass(frozen=True)
class Change:
    """A value that differs; None in a run that lacks it."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class CellChange:
    """A cell of either run, or of both.

    `name` is the metric, with `@<step>` for one of a training step.
    """

    name: str
    before: MetricValue | None
    after: MetricValue | None

    @property
    def difference(self) -> float | None:
        return self.after.value - self.before.value if self.before and self.after else None

    @property
    def noise(self) -> float | None:
        """Return the threshold of the difference; None if an interval is missing."""
        halves = [_half_width(cell) for cell in (self.before, self.after) if cell]
        known = [half for half in halves if half is not None]
        return math.hypot(*known) if len(known) == 2 else None

    @property
    def verdict(self) -> Verdict:
        """Whether the difference exceeds the noise."""
        if self.difference is None:
            return Verdict.BEFORE if self.before else Verdict.AFTER
        if self.difference == 0:
            return Verdict.SAME
        if self.noise is None:
            return Verdict.UNKNOWN
        return Verdict.OUTSIDE if abs(self.difference) > self.noise else Verdict.WITHIN


@dataclass(frozen=True)
class Comparison:
    """Two runs and their differences.

    `params` and `data` are sorted by name; `cells` has all cells in the order of `Verdict`, then of
    the tables.
    """

    before: LoggedRun
    after: LoggedRun
    params: list[Change]
    data: list[Change]
    cells: list[CellChange]

    @property
    def counts(self) -> dict[Verdict, int]:
        """Count the cells of each verdict."""
        found = [cell.verdict for cell in self.cells]
        return {verdict: found.count(verdict) for verdict in Verdict}

    @property
    def worse(self) -> list[CellChange]:
        """Return the cells in which ours, or a classifier, got worse by more than noise."""
        return [
            cell
            for cell in self.cells
            if cell.verdict is Verdict.OUTSIDE
            and worse(cell.name.split("@")[0], cell.difference or 0)
        ]

    @property
    def changed(self) -> list[CellChange]:
        """Return the cells that are not the same in both."""
        return [cell for cell in self.cells if cell.verdict is not Verdict.SAME]


def compare(before: LoggedRun, after: LoggedRun) -> Comparison:
    """Return everything that differs between two runs."""
    order = list(Verdict)
    cells = sorted(_cells(before, after), key=lambda cell: order.index(cell.verdict))
    params, data = _changes(before.params, after.params), _changes(before.data, after.data)
    return Comparison(before, after, params, data, cells)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    return [
        Change(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _cells(before: LoggedRun, after: LoggedRun) -> list[CellChange]:
    first, second = ({(c.name, c.step): c for c in run.cells} for run in (before, after))
    return [
        CellChange(f"{name}@{step}" if step else name, first.get(key), second.get(key))
        for key in dict.fromkeys([*first, *second])
        for name, step in [key]
    ]


def _half_width(value: MetricValue) -> float | None:
    return None if value.low is None or value.high is None else (value.high - value.low) / 2
