"""What the stages' files say of a run, as flat records: names, tags, numbers, curves, files.

Nothing here knows who keeps the records (`dxai.tracking` does); reading all of them before the
first is kept means that a run with a missing result is refused whole.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dxai.files import read_json
from dxai.params import Params
from dxai.stages import CLASSIFIERS, DECOMPOSITIONS, OUTCOMES, RESULTS, TABLES

OURS = "dxai"
CURVES = {
    "beta": "accuracy_vs_beta",
    "energy": "accuracy_vs_energy",
    "transfer": "transfer_accuracy_vs_beta",
    "blur": "blurred_accuracy_vs_beta",
}
"""Curve of a summary to the name of its metric."""
HEADLINES = (
    *("accuracy", "delta_low", "delta_high", "psnr_db"),
    *("auc_energy", "auc_transfer", "auc_blur"),
)
"""Columns of our row of Table 1 that the whole run shows, beside each method's AUC."""

Numbers = dict[str, float]


@dataclass(frozen=True)
class Record:
    """One thing that was done.

    Attributes
    ----------
    name : str
        `<dataset>/<classifier>/<what>`.
    tags : dict
        `kind` (benchmark, classifier, decomposition, method), `dataset`, `classifier`, `method`,
        `sign`, `seed`, `role`, `profile`, `result`, as far as they apply.
    numbers : dict
        Results, finite.
    curves : list of (int, dict)
        Step, and numbers at that step.
    params : dict
        Settings under dotted names.
    files : list of Path
        To be kept as they are.
    panels : dict
        Step to picture.
    table : dict
        Columns of Table 1.
    model : tuple of str and Path, optional
        'classifier' or 'explainer', and its model.pt.
    failed : bool
        Whether the thing broke.
    """

    name: str
    tags: dict[str, str]
    numbers: Numbers = field(default_factory=dict)
    curves: list[tuple[int, Numbers]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    panels: dict[int, Path] = field(default_factory=dict)
    table: dict[str, list[str]] = field(default_factory=dict)
    model: tuple[str, Path] | None = None
    failed: bool = False


def read_records(root: Path, params: Params) -> tuple[Record, list[Record]]:
    """The run as a whole, and each training and each evaluated method in it.

    Parameters
    ----------
    root : Path
        The project's folder.
    params : Params
        What was run; results of other runs that still lie about are left out.

    Raises
    ------
    ValueError
        If a result is missing; the message names the file.
    """
    try:
        parts = [
            record
            for dataset in params.datasets
            for name in params.explained
            for record in _of_classifier(root, params, dataset, name)
        ]
        return _whole(root, params), parts
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: no such result; run `dvc repro` first") from None


def _whole(root: Path, params: Params) -> Record:
    rows = _read_csv(root / TABLES / "table1.csv")
    names = ["tables/table1.csv", "tables/table6.csv", "metrics.json", "report.html"]
    files = [root / RESULTS / name for name in names] + [root / "params.yaml", root / "dvc.lock"]
    return Record(
        params.profile,
        {"kind": "benchmark", "profile": params.profile} | _version(root),
        headlines(rows),
        params={key: str(value) for key, value in flat(dataclasses.asdict(params))},
        files=[path for path in files if path.exists()],
        table={column: [row[column] for row in rows] for column in rows[0]} if rows else {},
    )


def _of_classifier(root: Path, params: Params, dataset: str, name: str) -> Iterator[Record]:
    tags = {"dataset": dataset, "classifier": name, "profile": params.profile}
    place = Path(dataset, name)
    # With C = D the decomposition trains what it explains.
    for role in ("explained", "twin") if name in params.classifiers else ("twin",):
        yield _classifier(root / CLASSIFIERS / place / role, f"{place}/{role}", role, tags)
    for seed in params.seeds_of(name):
        yield _decomposition(root / DECOMPOSITIONS / place / str(seed), f"{place}", seed, tags)
    for item in [*params.methods, *(f"{OURS}-{seed}" for seed in params.seeds_of(name))]:
        summary = read_json(root / OUTCOMES / place / item / "summary.json")
        for row in summary["rows"]:
            yield _method(row, f"{place}", tags | {"seed": str(summary["seed"])})


def _classifier(folder: Path, name: str, role: str, tags: dict[str, str]) -> Record:
    metrics = read_json(folder / "metrics.json")
    return Record(
        name,
        tags | {"kind": "classifier", "role": role, "seed": str(metrics["seed"])},
        numbers(metrics),
        _history(folder / "history.csv", "epoch"),
        model=("classifier", _existing(folder / "model.pt")),
    )


def _decomposition(folder: Path, place: str, seed: int, tags: dict[str, str]) -> Record:
    panels = {
        int(path.stem.removeprefix("step-")): path
        for path in sorted((folder / "panels").glob("step-*.png"))
    }
    return Record(
        f"{place}/decomposition-{seed}",
        tags | {"kind": "decomposition", "method": OURS, "seed": str(seed)},
        numbers(dict(flat(read_json(folder / "metrics.json")))),
        _history(folder / "history.csv", "step"),
        panels=panels,
        model=("explainer", _existing(folder / "model.pt")),
    )


def _method(row: dict[str, Any], place: str, tags: dict[str, str]) -> Record:
    tags = tags | {"kind": "method", "method": row["method"], "sign": row["sign"]}
    tags |= {"result": row["status"]}
    if row.get("reason"):
        tags["reason"] = row["reason"]
    seed = f"-{tags['seed']}" if row["method"] == OURS else ""
    curves = row.get("curves") or {}
    return Record(
        f"{place}/{row['method']}{seed}-{row['sign']}",
        tags,
        numbers(row),
        [
            (step, {CURVES[curve]: accuracy})
            for curve in CURVES.keys() & curves.keys()
            for step, accuracy in enumerate(curves[curve]["accuracy"])
        ],
        {f"levels.{curve}": str(points["level"]) for curve, points in curves.items()},
        failed=row["status"] == "failed",
    )


def headlines(rows: list[dict[str, str]]) -> Numbers:
    """`auc/<dataset>/<classifier>/<method>` and what our row adds, seeds averaged.

    Of a method that stands under several sign rules the first is taken, which is the table's.
    """
    cells: dict[str, list[float]] = {}
    signs: dict[str, str] = {}
    for row in rows:
        place = f"{row['dataset']}/{row['classifier']}"
        method = f"{place}/{row['method']}"
        if signs.setdefault(method, row["sign"]) != row["sign"]:
            continue
        names = {f"auc/{method}": "auc"}
        if row["method"] == OURS:
            names |= {f"{column}/{place}": column for column in HEADLINES}
        for name, value in numbers({name: row[column] for name, column in names.items()}).items():
            cells.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in cells.items()}


def numbers(values: Mapping[str, Any]) -> Numbers:
    """Those of `values` that are, or spell, a finite number."""
    found = {}
    for key, value in values.items():
        with contextlib.suppress(TypeError, ValueError):
            if math.isfinite(number := float(value)):
                found[key] = number
    return found


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names of letters, digits and `_ - . /`."""
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w./-]", "_", str(key))
        if isinstance(value, dict) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def _history(path: Path, step: str) -> list[tuple[int, Numbers]]:
    rows = [numbers(row) for row in _read_csv(path)]
    return [(int(row.pop(step)), row) for row in rows]


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _existing(path: Path) -> Path:
    path.stat()  # FileNotFoundError
    return path


def _version(root: Path) -> dict[str, str]:
    """Which code and which data: the commit, whether files differ from it, dvc.lock's hash."""
    tags = {}
    if (root / "dvc.lock").exists():
        tags["dvc_lock"] = hashlib.sha256((root / "dvc.lock").read_bytes()).hexdigest()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        tags["git_commit"] = _git(root, "rev-parse", "HEAD")
        tags["git_dirty"] = "yes" if _git(root, "status", "--porcelain") else "no"
    return tags


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
