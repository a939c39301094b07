"""`dxai table`: a result table as aligned text."""

from __future__ import annotations

import itertools
from pathlib import Path

from dxai.results.methods import OURS, OUTSIDE
from dxai.utils.files import read_rows

COLUMNS = {
    "auc": ("AUC", 3),
    "interval": ("95% interval", 3),
    "auc_energy": ("energy", 3),
    "auc_transfer": ("transfer", 3),
    "auc_blur": ("blur", 3),
    "psnr_db": ("PSNR", 1),
    "psnr_removed_db": ("PSNR x1", 1),
    "mean_abs_distinct": ("|distinct|", 3),
    "neutrality": ("neutral", 2),
    "seconds_per_image": ("s/image", 3),
}
"""Columns of Table 1 that are printed: heading and decimals."""

Row = dict[str, str]


def format_table(path: Path | str) -> str:
    """A CSV table as text: Table 1 in groups with its claim, claims in short, any other as it is.

    Raises
    ------
    ValueError
        If there is no such table, or nothing in it.
    """
    try:
        rows: list[Row] = read_rows(path)
    except FileNotFoundError:
        raise ValueError(
            f"{path}: no such table; `dvc repro` or `make benchmark` makes it"
        ) from None
    if not rows:
        raise ValueError(f"{path}: the table is empty")
    if {"claim", "holds"} <= rows[0].keys():
        return _claims(rows)
    if not {"method", "auc", "status"} <= rows[0].keys():
        return _aligned([list(rows[0]), *(list(row.values()) for row in rows)])
    cells = itertools.groupby(rows, key=lambda row: (row["dataset"], row["classifier"]))
    return "\n\n".join(_table1(dataset, name, list(cell)) for (dataset, name), cell in cells)


def _claims(rows: list[Row]) -> str:
    lines = [["table", "dataset / classifier", "claim", "against", "ours", "other", "difference"]]
    lines[0] += ["95% interval", "seeds", "verdict"]
    for row in rows:
        place = f"{row['dataset']} / {row['classifier']}"
        numbers = [_number(row[name], 3) for name in ("ours_value", "other_value")]
        interval = f"[{float(row['delta_low']):+.3f}, {float(row['delta_high']):+.3f}]"
        low = float(row["delta_low"])
        verdict = "holds" if row["holds"] == "True" else "reversed" if low > 0 else "undecided"
        delta = f"{float(row['delta']):+.3f}"
        named = [row["table"], place, row["claim"], row["other"]]
        lines.append([*named, *numbers, delta, interval, row["seeds"], verdict])
    return _aligned(lines, left=4)


def _table1(dataset: str, classifier: str, rows: list[Row]) -> str:
    scored = [row for row in rows if row["auc"]]
    rivals = [float(row["auc"]) for row in scored if row["method"] not in OUTSIDE]
    lowest = min(rivals, default=None)
    about = [f"{dataset} / {classifier}", f"profile {rows[0]['profile']}"]
    if scored:
        about.append(f"{float(scored[0]['images']):.0f} images")
        about.append(f"accuracy {float(scored[0]['accuracy']):.3f}")
    heading = ["method", "sign", *(heading for heading, _ in COLUMNS.values())]
    lines = [heading, *(_line(row, lowest) for row in rows)]
    notes = ["AUC and its guards: lower is better; * the lowest of ours and the baselines."]
    notes += [f"{r['method']}: {r['status']}: {r['reason']}" for r in rows if r["status"] != "ok"]
    notes += [
        f"{_name(row)} minus the best baseline: 95% interval "
        f"[{float(row['delta_low']):+.3f}, {float(row['delta_high']):+.3f}]"
        f"{', below 0' if float(row['delta_high']) < 0 else ', not below 0'}"
        for row in scored
        if row["method"] == OURS and row["delta_low"] and row["delta_high"]
    ]
    return "\n".join([", ".join(about), _aligned(lines), *notes])


def _line(row: Row, lowest: float | None) -> list[str]:
    if row["status"] != "ok":
        return [row["method"], row["sign"], row["status"]]
    name = f"({row['method']})" if row["method"] in OUTSIDE else _name(row)
    cells = {
        column: _number(row.get(column, ""), digits) for column, (_, digits) in COLUMNS.items()
    }
    cells["interval"] = f"{_number(row['auc_low'], 3)}-{_number(row['auc_high'], 3)}"
    best = row["method"] not in OUTSIDE and row["auc"] and float(row["auc"]) == lowest
    cells["auc"] += "*" if best else " "
    return [name, row["sign"], *cells.values()]


def _name(row: Row) -> str:
    """The method, and the seed unless it is the usual one."""
    return row["method"] + (f" (seed {row['seed']})" if row["seed"] not in ("", "0") else "")


def _number(text: str, digits: int) -> str:
    return f"{float(text):.{digits}f}" if text else "-"


def _aligned(lines: list[list[str]], left: int = 2) -> str:
    """Columns under their headings, the first `left` to the left, numbers to the right."""
    width = [max(map(len, column)) for column in itertools.zip_longest(*lines, fillvalue="")]
    rule = ["-" * n for n in width]
    return "\n".join(
        "  ".join(
            text.ljust(n) if place < left else text.rjust(n)
            for place, (text, n) in enumerate(zip(line, width, strict=False))
        ).rstrip()
        for line in [lines[0], rule, *lines[1:]]
    )
