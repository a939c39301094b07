"""Decide what a run logs to MLflow, and read it from the result files as flat records.

A record has names, tags, numbers, curves and files. `dxai.tracking.mlflow_store` reads all records
before it logs the first, so a run with a missing result is never logged in part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from dxai.config.schema import Params
from dxai.paths import (
    CROSS,
    HISTORY,
    MANIFEST,
    METRICS,
    MODEL,
    ROLES,
    SUMMARY,
    Paths,
    ours_name,
    panels,
)
from dxai.results.io import Row, Tables, read_history, read_table
from dxai.results.methods import BASELINES, OURS
from dxai.results.metric_names import metric_values, number, plain
from dxai.results.table_specs import SPECS
from dxai.results.validity import CLAIMLESS
from dxai.results.verdicts import AGAINST_BASELINES
from dxai.tracking import provenance
from dxai.utils.files import read_json, sha256

CURVE_METRICS = {
    "beta": "accuracy_vs_beta",
    "energy": "accuracy_vs_energy",
    "transfer": "transfer_accuracy_vs_beta",
    "transfer_energy": "transfer_accuracy_vs_energy",
    "blur": "blurred_accuracy_vs_beta",
    "smooth": "smooth_accuracy_vs_beta",
    "deletion": "accuracy_vs_deleted",
}
"""Curve of a summary to the name of its metric."""
GUARDS = {
    "accuracy_scored": "accuracy",
    "psnr_db": "psnr_db",
    "auc_energy": "auc_energy",
    "auc_transfer": "auc_transfer",
    "auc_transfer_energy": "auc_transfer_energy",
    "auc_blur": "auc_blur",
    "auc_smooth": "auc_smooth",
}
"""Metric of the whole run, `<metric>/<dataset>/<classifier>`, to a column of our row of Table 1."""
Numbers = dict[str, float]


@dataclass(frozen=True)
class Record:
    """A benchmark run, a training or an evaluated method, as it is logged."""

    name: str
    """`<dataset>/<classifier>/<what>`."""
    tags: dict[str, str]
    """`kind` (benchmark, classifier, decomposition, method, ablation, cross, stability), `dataset`,
    `classifier`, `method`, `sign`, `seed`, `role`, `variant`, `scorer`, `profile`, `result`, as far
    as they apply."""
    numbers: Numbers = field(default_factory=dict)
    curves: list[tuple[int, Numbers]] = field(default_factory=list)
    """Pairs of a step and its numbers."""
    params: dict[str, str] = field(default_factory=dict)
    """Settings under dotted names."""
    files: list[Path] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    """Name to content of further files."""
    folders: dict[str, Path] = field(default_factory=dict)
    panels: dict[int, Path] = field(default_factory=dict)
    """Step to picture file."""
    tables: Tables = field(default_factory=dict)
    model: tuple[str, Path] | None = None
    """'classifier' or 'explainer', and the path of its model.pt."""
    failed: bool = False


def read_records(root: Path, params: Params) -> tuple[Record, list[Record]]:
    """Read the run as a whole, and each training and evaluated method in it.

    Results that `params` does not select are ignored, as leftovers of other runs. Raises
    `ValueError`, naming the file, if a result is missing.
    """
    paths = Paths(root)
    try:
        logged = [name for name, spec in SPECS.items() if spec.logged]
        tables = {name: read_table(paths.table(name)) for name in logged}
        parts = [
            record
            for dataset in params.datasets
            for name in params.explained
            for record in _of_classifier(paths, params, dataset, name, tables)
        ]
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: no such result; run `dvc repro` first") from None
    return _whole(paths, params, tables), parts


def opening(paths: Paths, params: Params) -> Record:
    """Return what a run is known to be before it has results: settings, code and environment."""
    tags, texts = provenance.version(paths.root)
    tags.pop("dvc_lock", None)  # of the results that were there before
    return Record(
        params.profile,
        {"kind": "benchmark", "profile": params.profile} | tags,
        params=settings(params),
        files=[path for path in [paths.params] if path.exists()],
        texts=texts,
    )


def settings(params: Params) -> dict[str, str]:
    """Return all settings under dotted names."""
    return {key: str(value) for key, value in flat(params.model_dump())}


def _whole(paths: Paths, params: Params, tables: Tables) -> Record:
    files = [paths.metrics, paths.report, paths.params, paths.dvc_lock]
    steps: dict[int, Numbers] = {}
    for metric in metric_values(tables):
        steps.setdefault(metric.step, {})[metric.name] = metric.value
    version, texts = provenance.version(paths.root)
    manifests = {name: paths.dataset(name) / MANIFEST for name in params.datasets}
    # The manifest has the hashes of the dataset's files.
    data = {f"data.{plain(n)}": sha256(path) for n, path in manifests.items() if path.exists()}
    return Record(
        params.profile,
        {"kind": "benchmark", "profile": params.profile} | version | data | claimless(tables),
        guards(tables["table1"]) | deltas(tables["claims"]),
        list(steps.items()),
        settings(params),
        files=[path for path in files if path.exists()],
        texts=texts,
        folders={"tables": paths.tables},
        tables=tables,
    )


def _of_classifier(
    paths: Paths, params: Params, dataset: str, name: str, tables: Tables
) -> Iterator[Record]:
    tags = {"dataset": dataset, "classifier": name, "profile": params.profile}
    case = f"{dataset}/{name}"
    # With C = D the decomposition trains what it explains.
    for role in ROLES if name in params.classifiers else ("twin",):
        folder = paths.classifier(dataset, name, role)
        if "seed" in read_json(folder / METRICS):  # else a classifier without a twin
            yield _classifier(folder, case, tags | {"role": role})
    for seed in params.seeds_of(name):
        folder = paths.decomposition(dataset, name, seed)
        yield _decomposition(folder, case, tags | {"seed": str(seed)}, keep=True)
    for item in [*params.methods, *map(ours_name, params.seeds_of(name))]:
        summary = read_json(paths.outcome(dataset, name, item) / SUMMARY)
        for row in summary["rows"]:
            yield _method(row, case, tags | {"seed": str(summary["seed"])})
    for variant in params.variants_of(dataset, name):
        changed = {f"changed.{k}": str(v) for k, v in params.ablations.variants[variant].items()}
        about = tags | {"seed": str(params.seeds[0]), "variant": variant}
        folder = paths.decomposition(dataset, name, variant)
        yield _decomposition(folder, case, about, changed)
        yield _ablation(paths.ours(dataset, name, variant), case, about, changed, tables)
    if name in params.classifiers:
        for seed in params.seeds_of(name):
            for scorer in params.classifiers:
                folder = paths.cross(dataset, name, seed, scorer)
                about = tags | {"kind": "cross", "seed": str(seed), "scorer": scorer}
                yield _scored(f"{case}/{folder.name}", read_json(folder / CROSS)["row"], about, {})
    if name in params.repeat.classifiers:
        yield _stability(case, tags, tables)


def _classifier(folder: Path, case: str, tags: dict[str, str]) -> Record:
    metrics = read_json(folder / METRICS)
    return Record(
        f"{case}/{tags['role']}",
        tags | {"kind": "classifier", "seed": str(metrics["seed"])},
        *_training(folder, "epoch"),
        model=("classifier", _existing(folder / MODEL)),
    )


def _decomposition(
    folder: Path,
    case: str,
    tags: dict[str, str],
    params: dict[str, str] | None = None,
    keep: bool = False,
) -> Record:
    """Record a training; its model is optional, since logging that is the slowest part."""
    return Record(
        f"{case}/decomposition-{folder.name}",
        tags | {"kind": "decomposition", "method": OURS},
        *_training(folder, "step"),
        params or {},
        panels=panels(folder),
        model=("explainer", _existing(folder / MODEL)) if keep else None,
    )


def _method(row: Row, case: str, tags: dict[str, str]) -> Record:
    tags = tags | {"kind": "method", "sign": row["sign"]}
    if row.get("reason"):
        tags["reason"] = row["reason"]
    seed = f"-{tags['seed']}" if row["method"] == OURS else ""
    levels = {f"levels.{curve}": str(points["level"]) for curve, points in _drawn(row)}
    layer = {"layer": row["layer"]} if row.get("layer") else {}
    return _scored(f"{case}/{row['method']}{seed}-{row['sign']}", row, tags, levels | layer)


def _ablation(
    folder: Path, case: str, tags: dict[str, str], changed: dict[str, str], tables: Tables
) -> Record:
    """Record one variant of ours and its difference from the unchanged one."""
    (row,) = (r for r in read_json(folder / SUMMARY)["rows"] if r["method"] == OURS)
    same = ("dataset", "classifier", "variant")
    tabled = [r for r in tables["ablations"] if all(str(r[key]) == tags[key] for key in same)]
    delta = {key: value for r in tabled for key, value in r.items() if key.startswith("delta")}
    tags = tags | {"kind": "ablation"}
    return _scored(f"{case}/{folder.name}", row | delta, tags, changed)


def _scored(name: str, row: Row, tags: dict[str, str], params: dict[str, str]) -> Record:
    curves = [
        (step, {CURVE_METRICS[curve]: accuracy})
        for curve, points in _drawn(row)
        for step, accuracy in enumerate(points["accuracy"])
    ]
    tags = tags | {"method": row["method"], "result": row["status"]}
    return Record(name, tags, numbers(row), curves, params, failed=row["status"] == "failed")


def _stability(case: str, tags: dict[str, str], tables: Tables) -> Record:
    """Record the rows of Table 4 as curves over the training."""
    here = [r for r in tables["table4"] if f"{r['dataset']}/{r['classifier']}" == case]
    curves = [
        (
            row["step"] or 0,
            numbers({f"{name}/{row['method']}": row[name] for name in ("std", "normalised")}),
        )
        for row in here
    ]
    return Record(f"{case}/stability", tags | {"kind": "stability"}, curves=curves)


def _drawn(row: Row) -> list[tuple[str, dict[str, list[float]]]]:
    curves = row.get("curves") or {}
    return [(curve, points) for curve, points in curves.items() if curve in CURVE_METRICS]


def guards(rows: list[Row]) -> Numbers:
    """Return the guards in our rows of Table 1, averaged over seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == OURS:
            case = f"{plain(row['dataset'])}/{plain(row['classifier'])}"
            for name, value in numbers({name: row[GUARDS[name]] for name in GUARDS}).items():
                found.setdefault(f"{name}/{case}", []).append(value)
    return {name: fmean(values) for name, values in found.items()}


def claimless(tables: Tables) -> dict[str, str]:
    """Return the tags `brittle` and `at_chance`: the classifiers of which nothing is claimed."""
    found = {}
    for word in CLAIMLESS:
        rows = [row for row in tables["table1"] if row["validity"] == word]
        if named := dict.fromkeys(f"{row['dataset']}/{row['classifier']}" for row in rows):
            found[word.replace(" ", "_")] = ", ".join(named)
    return found


def deltas(claims: list[Row]) -> Numbers:
    """Return `delta/<table>/<dataset>/<classifier>/<other>` of each claim, with its interval.

    The best baseline is called `best_baseline` whichever it is, so that runs line up.
    """
    found: Numbers = {}
    for row in claims:
        best = row["table"] in AGAINST_BASELINES and row["other"] in BASELINES
        other = "best_baseline" if best else re.sub(r"\W+", "_", row["other"])
        claim = f"{row['table']}/{plain(row['dataset'])}/{plain(row['classifier'])}/{other}"
        values = {f"{name}/{claim}": row[name] for name in ("delta", "delta_low", "delta_high")}
        found |= numbers(values)
    return found


def numbers(values: Mapping[str, Any]) -> Numbers:
    """Return the finite numbers among `values`."""
    found = {key: number(value) for key, value in values.items()}
    return {key: value for key, value in found.items() if value is not None}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested mappings to dotted names of letters, digits and `_ - . /`."""
    for key, value in values.items():
        name = prefix + plain(key)
        if isinstance(value, dict) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def _training(folder: Path, step: str) -> tuple[Numbers, list[tuple[int, Numbers]]]:
    """Return a training's numbers and its curves, which no number of the same name may join."""
    curves = [(int(row.pop(step)), numbers(row)) for row in read_history(folder / HISTORY)]
    single = numbers(dict(flat(read_json(folder / METRICS))))
    return {k: v for k, v in single.items() if not any(k in row for _, row in curves)}, curves


def _existing(path: Path) -> Path:
    path.stat()  # FileNotFoundError
    return path
