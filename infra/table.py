"""Table 1 as lines of text, from results/table1.csv."""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path

COLUMNS = {
    "method": "method",
    "sign": "sign",
    "auc": "AUC",
    "interval": "95% interval",
    "auc_energy": "energy",
    "auc_transfer": "transfer",
    "auc_blur": "blur",
    "psnr_db": "PSNR",
    "neutrality": "neutral",
    "seconds_per_image": "s/image",
}
"""Columns of the file (and `interval`), and their headings."""

TEXT = ("method", "sign")
DECIMALS = {"psnr_db": 1}


def render(path: Path) -> str:
    """The table, a part for each dataset, classifier and seed.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = []
    for key, part in groupby(rows, key=lambda row: (row["dataset"], row["classifier"])):
        parts.append(_part(" / ".join(key), list(part)))
    return "\n\n".join(parts)


def _part(name: str, rows: list[dict[str, str]]) -> str:
    first = rows[0]
    about = f"{name}: accuracy {_number(first['accuracy'])} on {first['images']} test images"
    about += f", profile {first['profile']}; AUC and guards, lower is better"
    return "\n".join([about, *_align(rows), *_notes(rows)])


def _align(rows: list[dict[str, str]]) -> list[str]:
    table = [list(COLUMNS.values()), *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if name in TEXT else cell.rjust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in table
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _cells(row: dict[str, str]) -> list[str]:
    interval = ""
    if row["auc_low"]:
        interval = f"{_number(row['auc_low'])} .. {_number(row['auc_high'])}"
    values = row | {"interval": interval, "method": _label(row)}
    if row["status"] != "ok":
        values["auc"] = row["status"]
    return [
        values[name]
        if name in (*TEXT, "interval")
        else _number(values[name], DECIMALS.get(name, 3))
        for name in COLUMNS
    ]


def _label(row: dict[str, str]) -> str:
    return row["method"] + (f" (seed {row['seed']})" if row["seed"] not in ("", "0") else "")


def _number(text: str, decimals: int = 3) -> str:
    try:
        return f"{float(text):.{decimals}f}"
    except ValueError:
        return text


def _notes(rows: list[dict[str, str]]) -> list[str]:
    notes = [
        f"{row['method']}: {row['status']}: {row['reason']}"
        for row in rows
        if row["status"] != "ok"
    ]
    for row in rows:
        if row["delta_high"]:
            verdict = "below" if float(row["delta_high"]) < 0 else "not clearly below"
            low, high = _number(row["delta_low"]), _number(row["delta_high"])
            notes.append(
                f"{_label(row)} is {verdict} the best baseline: difference {low} .. {high} (95%)"
            )
    return notes
