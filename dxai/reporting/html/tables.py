"""Tables, claims and means of the page: links behind their numbers, and files to save.

Templates read mappings (`View`).
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
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
    measured,
)
from dxai.reporting.text import latex, markdown
from dxai.results import paper
from dxai.results.io import Row
from dxai.results.methods import (
    BASELINES,
    CONTROLS,
    ORDER,
    OURS,
    OUTSIDE,
    best_baseline,
    is_contested,
    label,
    rank,
)
from dxai.results.table_specs import SPECS, short_title
from dxai.results.validity import CLAIMLESS, NOT_KNOWN, judged
from dxai.results.verdicts import BEST, HOLDS, REVERSED, UNDECIDED, UNKNOWN

View = dict[str, Any]
"""Template values by name."""

# ------------------------------------------------------------------------------------ one case
GUARDS = {
    "auc_energy": "equal energy",
    "auc_transfer": "transfer",
    "auc_transfer_energy": "transfer at equal energy",
    "auc_blur": "blur",
    "auc_smooth": "averaged over noise",
}
AREAS = ("auc", *GUARDS)
"""Compared columns: the lowest value among ours and the baselines is the best."""


def make_claim(case: Case) -> View | None:
    """Return the claim of Table 1 with its guards; None unless ours and a baseline were scored."""
    named = ("table1", BEST)
    row = next((c for c in case.tables["claims"] if (c["table"], c["claim"]) == named), None)
    if row is None:
        return None
    found = judged(row)
    checks = [
        {"name": name, "ours": own, "other": other, "against": rival, "agrees": own < other}
        for name, own, other, rival in _checks(case)
        if found not in CLAIMLESS
    ]
    return {
        "row": row,
        "ours": measured(row, "ours_value"),
        "best": against(row),
        "verdict": found,
        "checks": checks,
        "doubts": sum(not check["agrees"] for check in checks),
    }


def _checks(case: Case) -> Iterator[tuple[str, float, float, str]]:
    """Yield each guard and control: its name, our area, the other's area, the other's name."""
    ours = case.ours()
    for column, name in GUARDS.items():
        best = best_baseline(case.rows, column)
        own = [row[column] for row in ours if row[column] is not None]
        if best is not None and own:
            rule = "" if best["sign"] == case.primary(best["method"]) else f", {best['sign']}"
            yield name, fmean(own), best[column], label(best["method"]) + rule
    control = CONTROLS[-1]
    areas = [r["auc"] for r in case.rows if r["method"] == control and r["auc"] is not None]
    if areas:
        yield "random phases", fmean(row["auc"] for row in ours), fmean(areas), label(control)


def make_groups(case: Case, params: Params) -> list[View]:
    """Group the rows that are read together, in the order of the page, without empty groups."""
    rows = sorted(case.rows, key=lambda row: (rank(row["method"]), row["seed"] or 0))
    contested = [row for row in rows if is_contested(row["method"], row["sign"])]
    contested = [row for row in contested if row["validity"] not in CLAIMLESS]
    known = {c: [row[c] for row in contested if row[c] is not None] for c in AREAS}
    lowest = {column: min(values) for column, values in known.items() if values}
    groups: list[View] = []
    for title, kind, methods in (
        ("Ours", "ours", (OURS,)),
        ("Baselines", "baseline", BASELINES),
        ("The same baselines under their other rule for the sign", "other", BASELINES),
        ("Naive optimisation and controls: shown, outside the claim", "outside", OUTSIDE),
    ):
        own_rule = kind != "other"
        chosen = [
            _method_line(row, params, lowest if row in contested else {})
            for row in rows
            if row["method"] in methods and (row["sign"] == case.primary(row["method"])) == own_rule
        ]
        if chosen:
            groups.append({"title": title, "kind": kind, "rows": chosen})
    return groups


def _method_line(row: Row, params: Params, lowest: Mapping[str, float]) -> View:
    """Format a row of Table 1 with its budget (`samples 100, segments 30`) and its best columns."""
    method = row["method"]
    settings = {k: v for k, v in params.methods.get(method, {}).items() if v is not None}
    if row["layer"]:
        settings["layer"] = row["layer"]
    budget = ", ".join(f"{key} {value}" for key, value in settings.items())
    return row | {
        "label": label(method),
        "settings": budget if row["steps"] is None else f"{row['steps']:,.0f} steps",
        "best": {column for column, low in lowest.items() if row[column] == low},
        "paper": fixed(paper.TABLE1.get(row["dataset"], {}).get(method)),
    }


# ------------------------------------------------------------------------------------ means
def localised(case: Case, params: EvaluateParams) -> list[View]:
    """Show, in the columns `MEASURES`, how well each method marks the known parts of a class."""
    lines = []
    for method in ORDER:
        sign = case.primary(method)
        folder = case.first if method == OURS else case.folder / method
        images = pd.DataFrame() if sign is None else read_images(folder, method, sign)
        images = images.reindex(columns=["group", *MEASURES])
        known = int(images[list(MEASURES)].notna().any(axis=1).sum())
        if known:
            numbers = mean_intervals(images, list(MEASURES), params)
            lines.append(_means(label(method), known, numbers, method == OURS))
    return lines


def uncertain(case: Case, class_names: Sequence[str], params: EvaluateParams) -> list[View]:
    """Average the uncertainty over z of the images of each class, and of all."""
    images = read_images(case.first, OURS, "part")
    if "uncertainty" not in images or not images["uncertainty"].notna().any():
        return []
    parts = [(name, images[images["label"] == k]) for k, name in enumerate(class_names)]
    return [
        _means(name, len(part), mean_intervals(part, ["uncertainty"], params))
        for name, part in [*parts, ("all", images)]
        if len(part)
    ]


def _means(name: str, images: int, numbers: list[Number], ours: bool = False) -> View:
    return {"name": name, "images": images, "numbers": numbers, "ours": ours}


def mean_intervals(
    images: pd.DataFrame, columns: Sequence[str], params: EvaluateParams
) -> list[Number]:
    """Return the mean of each column with its 95% interval over independent groups."""
    values = images[list(columns)].to_numpy(float)
    samples = resampled_means(values, images["group"].tolist(), params.bootstrap, params.seed)
    found = []
    for k in range(values.shape[1]):
        known = np.isfinite(values[:, k])
        mean = float(values[known, k].mean()) if known.any() else None
        found.append(Number(mean, *(() if mean is None else interval(samples[:, k]))))
    return found


# ------------------------------------------------------------------------------------ all cases
Anchors = Mapping[tuple[str, str], str]
"""Maps dataset and classifier to the id of their section."""
SYMBOLS = {HOLDS: "✓", REVERSED: "✗", UNDECIDED: "○", UNKNOWN: "–"} | dict.fromkeys(CLAIMLESS, "–")


def make_view(table: Table, path: Path, anchors: Anchors) -> View:
    """Add links, and files to save, to a table made of the CSV file `path`."""
    files = (
        ("CSV", path.name, "text/csv", _csv(path)),
        ("LaTeX", f"{table.name}.tex", "application/x-tex", latex(table)),
        ("Markdown", f"{table.name}.md", "text/markdown", markdown(table)),
    )
    return {
        "table": table,
        "lines": [(line.kind, list(_entries(table, line, anchors))) for line in table.lines],
        "downloads": [(name, file, file_uri(text, kind)) for name, file, kind, text in files],
    }


def _entries(table: Table, line: Line, anchors: Anchors) -> Iterator[View]:
    """Yield a line's cells with links: on each number in a paper's table, else on the line."""
    each = table.name.startswith("table")
    for k, (column, cell) in enumerate(zip(table.columns, line.cells, strict=True)):
        dataset = column.dataset or line.dataset
        anchor = anchors.get((dataset, column.classifier or line.classifier))
        leads = column.kind == "value" and str(cell) != NONE if each else k == 0
        yield {
            "text": cell.text if isinstance(cell, Number) else cell,
            "interval": cell.interval if isinstance(cell, Number) else "",
            "href": f"#{anchor}" if leads and anchor else "",
            "kind": column.kind,
            "best": k in line.best,
        }


def _csv(path: Path) -> str:
    """Read the file; the table of all images is cut to those shown."""
    if path.stem != "per_image":
        return path.read_text(encoding="utf-8")
    whole = pd.read_csv(path, dtype=str, keep_default_na=False)
    shown = whole.groupby(["dataset", "classifier"], sort=False).head(WORST)
    return str(shown.to_csv(index=False))


def make_matrix(cases: list[Case], anchors: Anchors) -> View:
    """Show every claim of the run: claims in columns, datasets and classifiers in lines."""
    claims = [claim for case in cases for claim in case.tables["claims"]]
    order = list(SPECS)
    named = {(c["table"], c["claim"]): None for c in claims}
    heads = sorted(named, key=lambda head: order.index(head[0]))
    verdicts = Counter(map(judged, claims))
    lines = []
    for case in cases:
        anchor = anchors[case.dataset, case.classifier]
        marks: dict[Any, list[View]] = {head: [] for head in heads}
        found = make_claim(case)
        doubts = f"; {found['doubts']} of {len(found['checks'])} guards disagree" if found else ""
        for claim in case.tables["claims"]:
            head = claim["table"], claim["claim"]
            doubted = head == ("table1", BEST) and found and found["doubts"]
            marks[head].append(_mark(claim, anchor, doubts if doubted else ""))
        lines.append((case.name, anchor, list(marks.values())))
    counts = {words: verdicts[words] for words in SYMBOLS if verdicts[words]}
    titles = [(short_title(table), claim) for table, claim in heads]
    return {"heads": titles, "lines": lines, "counts": counts}


def _mark(claim: Row, anchor: str, doubts: str) -> View:
    words = judged(claim)
    other = "its control" if claim["other"] == CONTROLS[-1] else against(claim)
    seeds = "seed" if claim["seeds"] == 1 else "seeds"
    images = f"{claim['images']} images in {claim['groups']} groups"
    if claim["validity"] == NOT_KNOWN:
        doubts += "; validity not known"
    return {
        "symbol": SYMBOLS[words],
        "words": words,
        "difference": str(difference(claim)),
        "detail": f"ours {measured(claim, 'ours_value')}, {other} {fixed(claim['other_value'])}; "
        f"{claim['seeds']} {seeds}, {images}{doubts}",
        "href": f"#{anchor}" if claim["table"] == "table1" else f"#{claim['table']}",
    }


def file_uri(text: str, kind: str) -> str:
    """Encode a text file of the media type `kind` as a data URI."""
    return f"data:{kind};charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
