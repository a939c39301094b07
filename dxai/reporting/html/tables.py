"""Tables, claims and means of the page: links behind their numbers, and files to save."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxai.config.schema import EvaluateParams, Params
from dxai.metrics.curves import interval, resampled_means
from dxai.reporting.html.case import Case, read_images
from dxai.reporting.table_layouts import (
    MEASURES,
    NONE,
    WORST,
    Line,
    Number,
    Table,
    against,
    difference,
    fixed,
    ours,
)
from dxai.reporting.text import latex, markdown
from dxai.results import paper
from dxai.results.io import Row
from dxai.results.methods import BASELINES, CONTROLS, ORDER, OURS, OUTSIDE, best_baseline, label
from dxai.results.verdicts import BEST, HOLDS, REVERSED, UNDECIDED, UNKNOWN, verdict

# ------------------------------------------------------------------------------------ one case
GUARDS = {"auc_energy": "equal energy", "auc_transfer": "transfer", "auc_blur": "blur"}
AREAS = ("auc", *GUARDS)
"""Columns that are contested: the lowest value of ours and the baselines is the best."""


@dataclass(frozen=True)
class MethodLine:
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

    values: Row
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
    rows: list[MethodLine]


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
    """The claim of Table 1 on one dataset and classifier.

    Attributes
    ----------
    row : dict
        Its row of claims.csv.
    checks : list of Check
        Guards and controls.
    """

    row: Row
    checks: list[Check]

    @property
    def ours(self) -> Number:
        """The AUC of ours with its interval, the mean over seeds."""
        return ours(self.row)

    @property
    def best(self) -> str:
        """The baseline with the lowest AUC."""
        return against(self.row)

    @property
    def verdict(self) -> str:
        """The verdict of its difference."""
        return verdict(self.row["delta_low"], self.row["delta_high"])

    @property
    def doubts(self) -> int:
        """How many guards and controls do not agree."""
        return sum(not check.agrees for check in self.checks)


def make_claim(case: Case) -> Claim | None:
    """The claim of Table 1; None unless ours and a baseline were scored."""
    found = (c for c in case.tables["claims"] if c["table"] == 1 and c["claim"] == BEST)
    row = next(found, None)
    return None if row is None else Claim(row, _checks(case))


def _with_sign(case: Case, row: Row) -> str:
    """The name of a row's method, with the sign rule if it is not the method's own."""
    name = label(row["method"])
    return name if row["sign"] == case.primary(row["method"]) else f"{name}, {row['sign']}"


def _checks(case: Case) -> list[Check]:
    ours = case.ours()
    checks = []
    for column, name in GUARDS.items():
        best = best_baseline(case.rows, column)
        own = [row for row in ours if row[column] is not None]
        if best is not None and own:
            checks.append(Check(name, _mean(own, column), best[column], _with_sign(case, best)))
    control = [r for r in case.rows if r["method"] == "random_phase" and r["auc"] is not None]
    if control:
        own_auc, name = _mean(ours, "auc"), label("random_phase")
        checks.append(Check("random phases", own_auc, _mean(control, "auc"), name))
    return checks


def _mean(rows: list[Row], column: str) -> float:
    return math.fsum(row[column] for row in rows) / len(rows)


def make_groups(case: Case, params: Params) -> list[Group]:
    """The rows in the order of the page; groups without rows are left out."""
    order = {method: k for k, method in enumerate(ORDER)}
    rows = sorted(case.rows, key=lambda r: (order.get(r["method"], len(order)), r["seed"] or 0))
    lowest = _lowest([r for r in case.rows if r["method"] in (OURS, *BASELINES)])

    def group(title: str, kind: str, methods: tuple[str, ...], primary: bool = True) -> Group:
        chosen = [
            r
            for r in rows
            if r["method"] in methods and (r["sign"] == case.primary(r["method"])) == primary
        ]
        best = lowest if kind != "outside" else {}
        return Group(title, kind, [_method_line(r, params, best) for r in chosen])

    groups = [
        group("Ours", "ours", (OURS,)),
        group("Baselines", "baseline", BASELINES),
        group("The same baselines, ReLU for all (the paper's H ≥ 0)", "other", BASELINES, False),
        group("Naive optimisation and controls: shown, outside the claim", "outside", OUTSIDE),
    ]
    return [g for g in groups if g.rows]


def _lowest(rows: list[Row]) -> dict[str, float]:
    """The lowest value of each contested column."""
    values = {c: [row[c] for row in rows if row[c] is not None] for c in AREAS}
    return {column: min(found) for column, found in values.items() if found}


def _method_line(values: Row, params: Params, lowest: dict[str, float]) -> MethodLine:
    method = values["method"]
    printed = paper.TABLE1.get(values["dataset"], {}).get(method)
    return MethodLine(
        values=values,
        label=label(method),
        settings=_settings(values, params),
        best=frozenset(c for c, low in lowest.items() if values[c] == low),
        paper=fixed(printed),
    )


def _settings(values: Row, params: Params) -> str:
    """The budget behind a row, for example `samples 100, segments 30`."""
    if values["steps"] is not None:
        return f"{values['steps']:,.0f} steps"
    chosen = params.methods.get(values["method"], {})
    return ", ".join(f"{key} {value}" for key, value in chosen.items() if value is not None)


# ------------------------------------------------------------------------------------ means
CHANCE = "mask_area"


@dataclass(frozen=True)
class Means:
    """One line: its name, how many images it rests on, and a number per column."""

    name: str
    images: int
    values: list[Number]
    ours: bool = False


def localised(case: Case, params: EvaluateParams) -> list[Means]:
    """How well each method marks what is known to make the class, in the columns `MEASURES`."""
    lines = []
    for method in ORDER:
        sign, folder = case.primary(method), _folder(case, method)
        images = pd.DataFrame() if sign is None else read_images(case.folder / folder, method, sign)
        if CHANCE not in images or not images[list(MEASURES)].notna().any(axis=None):
            continue
        values = mean_intervals(images, list(MEASURES), params)
        known = int(images[list(MEASURES)].notna().any(axis=1).sum())
        lines.append(Means(label(method), known, values, method == OURS))
    return lines


def uncertain(case: Case, class_names: Sequence[str], params: EvaluateParams) -> list[Means]:
    """Uncertainty over z of the images of each class, and of all of them."""
    images = read_images(case.first, OURS, "part")
    if "uncertainty" not in images or not images["uncertainty"].notna().any():
        return []
    parts = [(name, images[images["label"] == k]) for k, name in enumerate(class_names)]
    return [
        Means(name, len(part), mean_intervals(part, ["uncertainty"], params))
        for name, part in [*parts, ("all", images)]
        if len(part)
    ]


def mean_intervals(
    images: pd.DataFrame, columns: Sequence[str], params: EvaluateParams
) -> list[Number]:
    """The mean of each column with its 95% interval over independent groups."""
    values = images[list(columns)].to_numpy(float)
    samples = resampled_means(values, images["group"].tolist(), params.bootstrap, params.seed)
    found = []
    for k in range(values.shape[1]):
        known = np.isfinite(values[:, k])
        mean = float(values[known, k].mean()) if known.any() else None
        found.append(Number(mean, *(() if mean is None else interval(samples[:, k]))))
    return found


def _folder(case: Case, method: str) -> str:
    return case.first.name if method == OURS else method


# ------------------------------------------------------------------------------------ all cases
Anchors = Mapping[tuple[str, str], str]
"""Dataset and classifier to the id of their section."""
SYMBOLS = {HOLDS: "✓", REVERSED: "✗", UNDECIDED: "○", UNKNOWN: "–"}


@dataclass(frozen=True)
class Entry:
    """One cell of a table: a number, its interval, and where it leads."""

    text: str
    interval: str
    href: str
    kind: str
    best: bool


@dataclass(frozen=True)
class View:
    """A table of the page.

    Attributes
    ----------
    lines : list of (str, list of Entry)
        Kind of the line, and its cells.
    downloads : list of (str, str, str)
        Label, file name and data URI of each file to save.
    """

    table: Table
    lines: list[tuple[str, list[Entry]]]
    downloads: list[tuple[str, str, str]]


def make_view(table: Table, path: Path, anchors: Anchors) -> View:
    """Add links, and files to save, to a table made of the CSV file `path`."""
    tex, md = f"{table.name}.tex", f"{table.name}.md"
    return View(
        table,
        [(line.kind, list(_entries(table, line, anchors))) for line in table.lines],
        [
            ("CSV", path.name, file_uri(_csv(path), "text/csv")),
            ("LaTeX", tex, file_uri(latex(table), "application/x-tex")),
            ("Markdown", md, file_uri(markdown(table), "text/markdown")),
        ],
    )


def _entries(table: Table, line: Line, anchors: Anchors) -> Iterable[Entry]:
    """The cells of a line; in a table of the paper every number leads somewhere, else the line."""
    each = table.name.startswith("table")
    for k, (column, cell) in enumerate(zip(table.columns, line.cells, strict=True)):
        dataset = column.dataset or line.dataset
        anchor = anchors.get((dataset, column.classifier or line.classifier))
        leads = column.kind == "value" and str(cell) != NONE if each else k == 0
        yield Entry(
            text=cell.text if isinstance(cell, Number) else cell,
            interval=cell.interval if isinstance(cell, Number) else "",
            href=f"#{anchor}" if leads and anchor else "",
            kind=column.kind,
            best=k in line.best,
        )


def _csv(path: Path) -> str:
    """The file itself; the table of all images is cut to those shown."""
    if path.stem != "per_image":
        return path.read_text(encoding="utf-8")
    whole = pd.read_csv(path, dtype=str, keep_default_na=False)
    shown = whole.groupby(["dataset", "classifier"], sort=False).head(WORST)
    return str(shown.to_csv(index=False))


@dataclass(frozen=True)
class Mark:
    """One claim in the matrix."""

    symbol: str
    words: str
    difference: str
    detail: str
    href: str


@dataclass(frozen=True)
class Matrix:
    """Claims in columns, datasets and classifiers in lines."""

    heads: list[tuple[int, str]]
    lines: list[tuple[str, str, list[list[Mark]]]]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims have which verdict."""
        marks = [mark.words for _, _, cells in self.lines for cell in cells for mark in cell]
        return {words: marks.count(words) for words in SYMBOLS if words in marks}


def make_matrix(cases: list[Case], anchors: Anchors) -> Matrix:
    """Every claim of the run at a glance."""
    claims = [claim for case in cases for claim in case.tables["claims"]]
    found_keys = dict.fromkeys((c["table"], c["claim"]) for c in claims)
    keys = sorted(found_keys, key=lambda key: key[0])
    lines = []
    for case in cases:
        anchor, found = anchors[case.dataset, case.classifier], case.tables["claims"]
        doubts = _doubts(make_claim(case))
        marks = [
            [
                _mark(c, anchor, doubts if key == (1, BEST) else "")
                for c in found
                if (c["table"], c["claim"]) == key
            ]
            for key in keys
        ]
        lines.append((case.name, anchor, marks))
    return Matrix(keys, lines)


def _doubts(claim: Claim | None) -> str:
    """How many guards do not agree with Table 1."""
    if claim is None or not claim.doubts:
        return ""
    return f"; {claim.doubts} of {len(claim.checks)} guards disagree"


def _mark(claim: Row, anchor: str, doubts: str) -> Mark:
    words = verdict(claim["delta_low"], claim["delta_high"])
    other = "its control" if claim["other"] == CONTROLS[-1] else against(claim)
    seeds = "seed" if claim["seeds"] == 1 else "seeds"
    images = f"{claim['images']} images in {claim['groups']} groups"
    detail = f"ours {ours(claim)}, {other} {claim['other_value']:.3f}; "
    detail += f"{claim['seeds']} {seeds}, {images}{doubts}"
    href = f"#{anchor}" if claim["table"] == 1 else f"#table{claim['table']}"
    return Mark(SYMBOLS[words], words, str(difference(claim)), detail, href)


def file_uri(text: str, kind: str) -> str:
    """Encode a text file of the media type `kind` as a data URI."""
    return f"data:{kind};charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
