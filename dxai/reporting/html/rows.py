"""Table 1 of one dataset and classifier as it is read: groups of rows, the best ones, the claim."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dxai.config.schema import Params
from dxai.reporting.html.results import Cell
from dxai.reporting.table_layouts import BEST, against, fixed, verdict
from dxai.results import paper
from dxai.results.methods import BASELINES, OURS, OUTSIDE, STYLES, style

GUARDS = {"auc_energy": "equal energy", "auc_transfer": "transfer", "auc_blur": "blur"}
AREAS = ("auc", *GUARDS)
"""Columns that are contested: the lowest value of ours and the baselines is the best."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    values : dict
        The line of table1.csv.
    label, settings : str
        The method's name, and what it was run with.
    best : set of str
        Columns in which no other row of the claim is lower.
    paper : str
        The paper's AUC on its set of this name.
    """

    values: dict[str, Any]
    label: str
    settings: str
    best: frozenset[str]
    paper: str

    def __getitem__(self, key: str) -> Any:
        return self.values.get(key)


@dataclass(frozen=True)
class Group:
    """Rows that are read together."""

    title: str
    kind: str
    rows: list[Row]


@dataclass(frozen=True)
class Check:
    """Whether a guard or a control agrees that ours explains more than it destroys."""

    name: str
    ours: float
    other: float
    against: str

    @property
    def agrees(self) -> bool:
        """Lower is better."""
        return self.ours < self.other


@dataclass(frozen=True)
class Claim:
    """Ours against the best baseline.

    Attributes
    ----------
    ours, interval : float, str
        AUC, the mean over `seeds` seeds, on so many images in independent groups.
    best, best_auc
        The baseline with the lowest AUC.
    difference, low, high : float or None
        Ours less the best baseline, and the 95% interval of this paired difference.
    verdict : str
        What the interval says.
    checks : list of Check
    """

    ours: float
    interval: str
    seeds: int
    images: int
    groups: int
    best: str
    best_auc: float
    difference: float
    low: float | None
    high: float | None
    verdict: str
    checks: list[Check]

    @property
    def doubts(self) -> int:
        """How many guards and controls do not agree."""
        return sum(not check.agrees for check in self.checks)


def make_claim(cell: Cell) -> Claim | None:
    """The claim of Table 1 on one cell; None unless ours and a baseline were scored."""
    found = (c for c in cell.tables["claims"] if c["table"] == 1 and c["claim"] == BEST)
    claim = next(found, None)
    if claim is None:
        return None
    return Claim(
        ours=claim["ours_value"],
        seeds=int(claim["seeds"]),
        images=int(claim["images"]),
        groups=int(claim["groups"]),
        interval=f"[{fixed(claim['ours_low'])}, {fixed(claim['ours_high'])}]",
        best=against(claim),
        best_auc=claim["other_value"],
        difference=claim["delta"],
        low=claim["delta_low"],
        high=claim["delta_high"],
        verdict=verdict(claim),
        checks=_checks(cell),
    )


def _with_sign(cell: Cell, row: dict[str, Any]) -> str:
    """The name of a row's method, with the sign rule if it is not the method's own."""
    label = style(row["method"]).label
    return label if row["sign"] == cell.primary(row["method"]) else f"{label}, {row['sign']}"


def _checks(cell: Cell) -> list[Check]:
    ours = cell.ours()
    checks = []
    for column, name in GUARDS.items():
        scored = [row for row in cell.baselines() if row[column] is not None]
        own = [row for row in ours if row[column] is not None]
        if scored and own:
            best = min(scored, key=lambda row: row[column])
            other = _with_sign(cell, best)
            checks.append(Check(name, _mean(own, column), best[column], other))
    control = [r for r in cell.rows if r["method"] == "random_phase" and r["auc"] is not None]
    if control:
        own_auc, label = _mean(ours, "auc"), style("random_phase").label
        checks.append(Check("random phases", own_auc, _mean(control, "auc"), label))
    return checks


def _mean(rows: list[dict[str, Any]], column: str) -> float:
    return math.fsum(row[column] for row in rows) / len(rows)


def make_groups(cell: Cell, params: Params) -> list[Group]:
    """The rows in the order of the page; groups without rows are left out."""
    order = {method: place for place, method in enumerate(STYLES)}
    rows = sorted(cell.rows, key=lambda r: (order.get(r["method"], len(order)), r["seed"] or 0))
    lowest = _lowest(cell.ours() + cell.baselines())

    def group(title: str, kind: str, methods: tuple[str, ...], primary: bool = True) -> Group:
        chosen = [
            r
            for r in rows
            if r["method"] in methods and (r["sign"] == cell.primary(r["method"])) == primary
        ]
        best = lowest if kind != "outside" else {}
        return Group(title, kind, [_row(r, params, best) for r in chosen])

    groups = [
        group("Ours", "ours", (OURS,)),
        group("Baselines", "baseline", BASELINES),
        group("The same baselines, ReLU for all (the paper's H ≥ 0)", "other", BASELINES, False),
        group("Naive optimisation and controls: shown, outside the claim", "outside", OUTSIDE),
    ]
    return [g for g in groups if g.rows]


def _lowest(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The lowest value of each contested column."""
    values = {c: [row[c] for row in rows if row[c] is not None] for c in AREAS}
    return {column: min(found) for column, found in values.items() if found}


def _row(values: dict[str, Any], params: Params, lowest: dict[str, float]) -> Row:
    method = values["method"]
    printed = paper.TABLE1.get(values["dataset"], {}).get(method)
    return Row(
        values=values,
        label=style(method).label,
        settings=_settings(values, params),
        best=frozenset(c for c, low in lowest.items() if values[c] == low),
        paper=fixed(printed),
    )


def _settings(values: dict[str, Any], params: Params) -> str:
    """The budget behind a row, for example `samples 100, segments 30`."""
    if values["steps"] is not None:
        return f"{values['steps']:,.0f} steps"
    chosen = params.methods.get(values["method"], {})
    return ", ".join(f"{key} {value}" for key, value in chosen.items() if value is not None)
