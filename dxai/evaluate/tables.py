"""Tables 1 and 6 from what the stages left behind: one row a cell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from dxai.evaluate import paper
from dxai.evaluate.curves import Curve, paired_difference
from dxai.evaluate.names import BASELINES, CONTROLS, ORDER, OURS
from dxai.evaluate.scores import curve
from dxai.files import read_json
from dxai.params import EvaluateParams

TABLE1_COLUMNS = (
    "dataset", "classifier", "method", "sign", "seed", "profile", "steps", "images", "accuracy",
    "auc", "auc_low", "auc_high", "delta_low", "delta_high", "auc_energy", "auc_transfer",
    "auc_blur", "psnr_db", "psnr_removed_db", "mean_abs_distinct", "neutrality",
    "seconds_per_image", "status", "reason",
)  # fmt: skip
TABLE6_COLUMNS = (
    "dataset", "classifier", "seed", "profile", "images", "test_accuracy", "accuracy_low",
    "accuracy_high", "paper",
)  # fmt: skip


def table1(folders: Iterable[Path], params: EvaluateParams) -> pd.DataFrame:
    """Table 1 with guards, controls and, on our rows, the paired difference to the best baseline.

    Parameters
    ----------
    folders : iterable of Path
        Folders of results/outcomes/ as written by the stages `baseline` and `ours`.
    params : EvaluateParams
        For the number of resamples.

    Returns
    -------
    DataFrame
        Columns `TABLE1_COLUMNS`. `delta_low` and `delta_high` are the 95% interval of our AUC less
        that of the baseline with the lowest AUC, whatever its sign rule; controls and the naive
        optimisation have no part in that.
    """
    summaries = [(folder, read_json(folder / "summary.json")) for folder in folders]
    rows = [_row(summary, row) for _, summary in summaries for row in summary["rows"]]
    frame = pd.DataFrame(rows, columns=list(TABLE1_COLUMNS))
    for (dataset, classifier), cell in frame.groupby(["dataset", "classifier"]):
        best = best_baseline(cell)
        ours = cell[(cell["method"] == OURS) & (cell["status"] == "ok")]
        if best is None or ours.empty:
            continue
        here = [f for f, s in summaries if (s["dataset"], s["classifier"]) == (dataset, classifier)]
        other = _curve(here, best["method"], best["sign"], best["seed"])
        for place, row in ours.iterrows():
            own = _curve(here, OURS, row["sign"], row["seed"])
            _, low, high = paired_difference([own], [other], params.bootstrap, 0)
            frame.loc[place, ["delta_low", "delta_high"]] = low, high
    return _sorted(frame)


def best_baseline(cell: pd.DataFrame) -> pd.Series | None:
    """The baseline row with the lowest AUC among the rows of one dataset and classifier."""
    rivals = cell[(cell["status"] == "ok") & cell["method"].isin(BASELINES)]
    return None if rivals.empty else rivals.iloc[int(rivals["auc"].astype(float).argmin())]


def claims(
    table: pd.DataFrame, folders: Iterable[Path], params: EvaluateParams
) -> list[dict[str, Any]]:
    """Per dataset and classifier: ours, as the mean of its seeds, against the best baseline.

    Returns
    -------
    list of dict
        `dataset`, `classifier`, `baseline`, `sign`, `auc`, `baseline_auc`, `delta`, `delta_low`,
        `delta_high`, `seeds`, `better` (delta_high < 0).
    """
    folders = list(folders)
    found = []
    for (dataset, classifier), cell in table.groupby(["dataset", "classifier"], sort=False):
        best = best_baseline(cell)
        ours = cell[(cell["method"] == OURS) & (cell["status"] == "ok")]
        if best is None or ours.empty:
            continue
        here = [f for f in folders if f.parts[-3:-1] == (dataset, classifier)]
        own = [_curve(here, OURS, row["sign"], row["seed"]) for _, row in ours.iterrows()]
        other = _curve(here, best["method"], best["sign"], best["seed"])
        delta, low, high = paired_difference(own, [other], params.bootstrap, 0)
        found.append(
            {
                "dataset": dataset,
                "classifier": classifier,
                "baseline": best["method"],
                "sign": best["sign"],
                "auc": float(ours["auc"].astype(float).mean()),
                "baseline_auc": float(best["auc"]),
                "delta": delta,
                "delta_low": low,
                "delta_high": high,
                "seeds": [int(s) for s in ours["seed"]],
                "better": high < 0,
            }
        )
    return found


def table6(folders: Iterable[Path], names: Iterable[tuple[str, str]], profile: str) -> pd.DataFrame:
    """Table 6: test accuracy of each classifier with its 95% Wilson interval.

    Parameters
    ----------
    folders : iterable of Path
        Folders of artifacts/classifiers/ with metrics.json.
    names : iterable of (str, str)
        Dataset and classifier of each.
    profile : str
        Of the run.
    """
    rows = []
    for folder, (dataset, classifier) in zip(folders, names, strict=True):
        metrics = read_json(folder / "metrics.json")
        low, high = wilson(metrics["test_accuracy"], metrics["test_images"])
        rows.append(
            {
                "dataset": dataset,
                "classifier": classifier,
                "seed": metrics["seed"],
                "profile": profile,
                "images": metrics["test_images"],
                "test_accuracy": metrics["test_accuracy"],
                "accuracy_low": low,
                "accuracy_high": high,
                "paper": paper.TABLE6.get(dataset, {}).get(classifier),
            }
        )
    return pd.DataFrame(rows, columns=list(TABLE6_COLUMNS))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion."""
    found = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def curves(folders: Iterable[Path]) -> pd.DataFrame:
    """Every accuracy curve with its interval, one row a level, for `dvc plots`."""
    rows = []
    for folder in folders:
        summary = read_json(folder / "summary.json")
        named = {name: summary[name] for name in ("dataset", "classifier", "seed")}
        for row in summary["rows"]:
            for name, drawn in row.get("curves", {}).items():
                shared = named | {"method": row["method"], "sign": row["sign"], "curve": name}
                rows.append(pd.DataFrame(drawn).assign(**shared))
    columns = ["dataset", "classifier", "method", "sign", "seed", "curve"]
    columns += ["level", "accuracy", "low", "high"]
    return pd.concat(rows)[columns] if rows else pd.DataFrame(columns=columns)


def metrics(
    table: pd.DataFrame, accuracies: pd.DataFrame, found: list[dict[str, Any]]
) -> dict[str, Any]:
    """The headline numbers as nested dicts, for `dvc metrics show`."""
    first: dict[str, Any] = {}
    for _, row in table[table["status"] == "ok"].iterrows():
        cell = first.setdefault(row["dataset"], {}).setdefault(row["classifier"], {})
        seeded = row["method"] in (OURS, *CONTROLS)
        name = f"{row['method']}-{row['seed']}" if seeded else row["method"]
        signed = "" if row["sign"] == "part" else f"-{row['sign']}"
        cell[name + signed] = round(float(row["auc"]), 6)
    sixth: dict[str, Any] = {}
    for _, row in accuracies.iterrows():
        sixth.setdefault(row["dataset"], {})[row["classifier"]] = row["test_accuracy"]
    better = {
        f"{c['dataset']}/{c['classifier']}": {
            k: c[k] for k in ("auc", "baseline_auc", "delta", "delta_low", "delta_high")
        }
        for c in found
    }
    return {"table1": first, "table6": sixth, "ours_minus_best_baseline": better}


def _row(summary: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    decomposed = row["method"] in (OURS, *CONTROLS)
    shared = {name: summary[name] for name in ("dataset", "classifier", "seed", "profile")}
    return {
        **{name: row.get(name) for name in TABLE1_COLUMNS},
        **shared,
        "steps": summary["steps"] if decomposed else None,
        "images": row.get("images", summary["images"]),
    }


def _curve(folders: list[Path], method: str, sign: str, seed: int) -> Curve:
    name = f"{OURS}-{seed}" if method == OURS else method
    folder = next(f for f in folders if f.name == name)
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    chosen = (outcomes["method"] == method) & (outcomes["sign"] == sign)
    return curve(outcomes[chosen], "beta")


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    order = {method: place for place, method in enumerate(ORDER)}
    keyed = frame.assign(place=frame["method"].map(order))
    # The table's own sign rule first (as written by the stage), the other one after it.
    keyed = keyed.sort_values(["dataset", "classifier", "place", "seed"], kind="stable")
    typed = keyed.drop(columns="place").reset_index(drop=True)
    return typed.astype({"steps": "Int64", "seed": "Int64", "images": "Int64"})
