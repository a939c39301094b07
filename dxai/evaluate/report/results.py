"""Reading what the stages wrote, for the report: tables, summaries, histories, attributions."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from dxai.evaluate.names import BASELINES, OURS
from dxai.files import read_json

TEXT = frozenset(["dataset", "classifier", "method", "sign", "profile", "status", "reason"])


@dataclass(frozen=True)
class Folders:
    """Where the stages write."""

    prepared: Path = Path("data/prepared")
    classifiers: Path = Path("artifacts/classifiers")
    decompositions: Path = Path("artifacts/decompositions")
    outcomes: Path = Path("results/outcomes")
    results: Path = Path("results")


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV table: text columns as they are, numbers as float, empty and NaN as None.

    Raises
    ------
    ValueError
        If the file is missing, or a number is none.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {key: _value(key, text, path) for key, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run the stages before first") from None


def _value(key: str, text: str, path: Path) -> Any:
    if key in TEXT:
        return text or ""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{path}: {key} is {text!r}, not a number") from None
    return number if math.isfinite(number) else None


def read_history(path: Path) -> dict[str, np.ndarray]:
    """The columns of a training's history; none if there is no history or nothing in it."""
    if not path.is_file():
        return {}
    frame = pd.read_csv(path).apply(pd.to_numeric, errors="coerce")
    return {} if frame.empty else {str(name): frame[name].to_numpy(float) for name in frame}


def read_optional(path: Path) -> dict[str, Any]:
    """A JSON file's mapping; an empty one if there is no such file."""
    return read_json(path) if path.is_file() else {}


@dataclass(frozen=True)
class Cell:
    """All that was measured for one dataset and classifier.

    Attributes
    ----------
    rows : list of dict
        Its rows of table1.csv.
    folder : Path
        results/outcomes/<dataset>/<classifier>.
    summaries : dict
        Name of a folder in it to its summary.json.
    difference : dict
        `delta`, `delta_low`, `delta_high` of ours (mean of its seeds) less the best baseline.
    """

    dataset: str
    classifier: str
    rows: list[dict[str, Any]]
    folder: Path
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    difference: dict[str, Any] = field(default_factory=dict)

    def primary(self, method: str) -> str | None:
        """The sign of the method's own rule, whose row comes first in the table."""
        return next((row["sign"] for row in self.rows if row["method"] == method), None)

    def ours(self) -> list[dict[str, Any]]:
        """The scored rows of the decomposition, one a seed."""
        return [r for r in self.rows if r["method"] == OURS and r["auc"] is not None]

    def baselines(self) -> list[dict[str, Any]]:
        """The scored rows that ours is compared with, under whatever sign rule."""
        return [r for r in self.rows if r["method"] in BASELINES and r["auc"] is not None]

    def best_baseline(self) -> dict[str, Any] | None:
        """The row of the baseline with the lowest AUC."""
        return min(self.baselines(), key=lambda row: row["auc"], default=None)

    def curves(self, name: str, seed: int) -> dict[str, dict[str, Any]]:
        """Method to its accuracy curve, each in its primary sign, ours of the given seed."""
        return {
            row["method"]: row["curves"][name]
            for folder, summary in self.summaries.items()
            for row in summary.get("rows", [])
            if (folder == f"{OURS}-{seed}" or not folder.startswith(f"{OURS}-"))
            and row["status"] == "ok"
            and row["sign"] == self.primary(row["method"])
            and name in (row.get("curves") or {})
        }


def read_cells(folders: Folders, datasets: list[str], classifiers: list[str]) -> list[Cell]:
    """One cell for each dataset and classifier that has rows in table1.csv."""
    table = read_table(folders.results / "tables" / "table1.csv")
    deltas = read_optional(folders.results / "metrics.json").get("ours_minus_best_baseline", {})
    cells = []
    for dataset in datasets:
        for classifier in classifiers:
            rows = [r for r in table if (r["dataset"], r["classifier"]) == (dataset, classifier)]
            folder = folders.outcomes / dataset / classifier
            summaries = {p.parent.name: read_json(p) for p in folder.glob("*/summary.json")}
            difference = deltas.get(f"{dataset}/{classifier}", {})
            if rows:
                ordered = dict(sorted(summaries.items()))
                cells.append(Cell(dataset, classifier, rows, folder, ordered, difference))
    return cells


def scored_images(folder: Path) -> np.ndarray:
    """Places in the test split of the images that a method was asked to explain; maybe none."""
    path = folder / "attributions.npz"
    if not path.is_file():
        return np.zeros(0, dtype=int)
    with np.load(path) as file:
        return file["index"].astype(int)


def read_attributions(folder: Path, at: list[int]) -> dict[str, np.ndarray]:
    """Each map of attributions.npz, float32, for the images at these places of the split.

    Empty unless the file has all of them.
    """
    index = scored_images(folder)
    if not np.isin(at, index).all() or not at:
        return {}
    rows = [int(np.argmax(index == place)) for place in at]
    with np.load(folder / "attributions.npz") as file:
        names = [name for name in file.files if name != "index"]
        return {name: file[name][rows].astype(np.float32) for name in names}


def true_class_probability(
    folder: Path, method: str, sign: str, index: list[int]
) -> dict[int, dict[float, float]]:
    """Image to beta to the probability of its own class in x - beta psi_distinct."""
    path = folder / "outcomes.parquet"
    if not path.is_file():
        return {}
    where = [("curve", "=", "beta"), ("method", "=", method), ("sign", "=", sign)]
    table = pq.read_table(path, filters=[*where, ("index", "in", index)])
    found: dict[int, dict[float, float]] = {}
    for row in table.to_pylist():
        found.setdefault(row["index"], {})[row["level"]] = row[f"p{row['label']}"]
    return found
