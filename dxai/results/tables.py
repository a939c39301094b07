"""The paper's tables and those beyond it, from what the stages left behind: one row a cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from dxai.config.schema import EvaluateParams, Params
from dxai.datasets.registry import LAYOUTS
from dxai.metrics.curves import (
    Curve,
    auc_interval,
    interval,
    mean_areas,
    paired_difference,
    resampled_means,
)
from dxai.paths import (
    CROSS,
    IMAGES,
    MANIFEST,
    METRICS,
    OUTCOMES,
    STABILITY,
    SUMMARY,
    decomposition_of,
    index_name,
    ours_name,
)
from dxai.results import paper
from dxai.results.claims import best_baseline, by_cell, read_curve, read_maps
from dxai.results.methods import CONTROLS, ORDER, OURS
from dxai.utils.files import read_json

TABLE1_COLUMNS = (
    "dataset", "classifier", "method", "sign", "seed", "profile", "steps", "images", "accuracy",
    "auc", "auc_low", "auc_high", "delta_low", "delta_high", "auc_energy", "auc_transfer",
    "auc_blur", "psnr_db", "psnr_removed_db", "mean_abs_distinct", "neutrality", "uncertainty",
    "seconds_per_image", "status", "reason",
)  # fmt: skip
TABLE2_COLUMNS = (
    "dataset", "classifier", "method", "sign", "seed", "profile", "steps", "images",
    "auc_deletion", "auc_deletion_low", "auc_deletion_high", "paper",
)  # fmt: skip
TABLE3_COLUMNS = (
    "dataset", "trained", "scorer", "seeds", "profile", "steps", "images", "auc", "auc_low",
    "auc_high", "paper",
)  # fmt: skip
TABLE4_COLUMNS = (
    "dataset", "classifier", "method", "step", "seeds", "profile", "images", "std", "std_low",
    "std_high", "normalised", "normalised_low", "normalised_high", "constant", "paper",
    "paper_normalised",
)  # fmt: skip
TABLE5_COLUMNS = (
    "dataset", "source", "classes", "train", "validation", "test", "groups_test", "paper_train",
    "paper_test",
)  # fmt: skip
TABLE6_COLUMNS = (
    "dataset", "classifier", "seed", "profile", "images", "test_accuracy", "accuracy_low",
    "accuracy_high", "paper",
)  # fmt: skip
ABLATION_COLUMNS = (
    "dataset", "classifier", "variant", "seed", "profile", "steps", "images", "accuracy", "auc",
    "auc_low", "auc_high", "delta", "delta_low", "delta_high", "auc_transfer", "auc_blur",
    "psnr_db", "mean_abs_distinct", "neutrality",
)  # fmt: skip
LOCALISATION_COLUMNS = (
    "dataset", "classifier", "method", "sign", "seed", "images", "known", "pointing",
    "average_precision", "energy_inside", "mask_area", "correlation",
)  # fmt: skip
CLASS_COLUMNS = (
    "dataset", "classifier", "method", "sign", "seed", "class", "images", "accuracy", "auc",
    "auc_low", "auc_high",
)  # fmt: skip
IMAGE_COLUMNS = (
    "dataset", "classifier", "index", "id", "class", "group", "seeds", "ours", "baseline",
    "best_baseline", "before", "after", "uncertainty",
)  # fmt: skip
AS_IT_IS = "as it is"
"""The variant of the ablation table in which nothing is changed."""


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
    summaries = [(folder, read_json(folder / SUMMARY)) for folder in folders]
    rows = [
        _row(summary, row, TABLE1_COLUMNS) for _, summary in summaries for row in summary["rows"]
    ]
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
            _, low, high = paired_difference([own], [other], params.bootstrap, params.seed)
            frame.loc[place, ["delta_low", "delta_high"]] = low, high
    return _sorted(frame)


def table2(folders: Iterable[Path]) -> pd.DataFrame:
    """Table 2: area under accuracy / accuracy(0) while up to 20% of the pixels are deleted.

    Not divided by the range, as in the paper: 0.2 is no effect.
    """
    summaries = [read_json(folder / SUMMARY) for folder in folders]
    rows = [
        _row(summary, row, TABLE2_COLUMNS)
        | {"paper": paper.TABLE2.get(summary["dataset"], {}).get(row["method"])}
        for summary in summaries
        for row in summary["rows"]
        if row.get("auc_deletion") is not None
    ]
    return _sorted(pd.DataFrame(rows, columns=list(TABLE2_COLUMNS)))


def table3(folders: Iterable[Path], params: EvaluateParams) -> pd.DataFrame:
    """Table 3: AUC of a decomposition of one classifier, scored by each; the mean over seeds.

    Parameters
    ----------
    folders : iterable of Path
        Folders as written by the stage `cross`.
    """
    cells: dict[tuple[str, str, str], list[tuple[Path, dict[str, Any]]]] = {}
    for folder in folders:
        found = read_json(folder / CROSS)
        place = (found["dataset"], found["trained"], found["scorer"])
        cells.setdefault(place, []).append((folder, found))
    rows = []
    for (dataset, trained, scorer), members in cells.items():
        curves = [read_curve(folder, OURS, "part") for folder, _ in members]
        low, high = interval(mean_areas(curves, params.bootstrap, params.seed))
        _, first = members[0]
        rows.append(
            {
                "dataset": dataset,
                "trained": trained,
                "scorer": scorer,
                "seeds": len(members),
                **{key: first[key] for key in ("profile", "steps", "images")},
                "auc": float(np.mean([curve.auc for curve in curves])),
                "auc_low": low,
                "auc_high": high,
                "paper": paper.TABLE3.get(dataset, {}).get(trained, {}).get(scorer),
            }
        )
    return pd.DataFrame(rows, columns=list(TABLE3_COLUMNS))


def table4(folders: Iterable[Path], params: EvaluateParams) -> pd.DataFrame:
    """Table 4: standard deviation over seeds as training goes on, beside layer-based maps.

    Parameters
    ----------
    folders : iterable of Path
        Folders as written by the stage `stability`.

    Returns
    -------
    DataFrame
        Columns `TABLE4_COLUMNS`. `step` is empty for maps over three layers, `constant` counts the
        images whose maps have no range; they have no part in `normalised`.
    """
    rows = []
    for folder in folders:
        found = read_json(folder / STABILITY)
        images = read_maps(folder)
        steps = sorted(found["steps"])
        for named, part in images.groupby(["method", "step"], dropna=False, sort=False):
            method = str(named[0])
            ours = method == OURS
            values = part[["std", "normalised"]].to_numpy(float)
            samples = resampled_means(values, part["group"].tolist(), params.bootstrap, params.seed)
            bounds = [
                interval(samples[:, k]) if np.isfinite(samples[:, k]).any() else (np.nan, np.nan)
                for k in range(2)
            ]
            printed = paper.TABLE4.get(found["dataset"])
            normalised = paper.TABLE4_NORMALISED.get(found["dataset"], {}).get(method)
            step = int(part["step"].iloc[0]) if ours else None
            place = steps.index(step) if step is not None else -1
            matching = len(steps) == len(paper.TABLE4_STEPS)
            rows.append(
                {
                    "dataset": found["dataset"],
                    "classifier": found["classifier"],
                    "method": method,
                    "step": step,
                    "seeds": len(found["seeds"]) if ours else None,
                    "profile": found["profile"],
                    "images": len(part),
                    "std": float(values[:, 0].mean()),
                    "std_low": bounds[0][0],
                    "std_high": bounds[0][1],
                    "normalised": float(part["normalised"].mean()),
                    "normalised_low": bounds[1][0],
                    "normalised_high": bounds[1][1],
                    "constant": int(part["normalised"].isna().sum()),
                    "paper": printed[place] if ours and printed and matching else None,
                    "paper_normalised": normalised if not ours or place == len(steps) - 1 else None,
                }
            )
    frame = pd.DataFrame(rows, columns=list(TABLE4_COLUMNS))
    return frame.astype({"step": "Int64", "seeds": "Int64"})


def table5(folders: Iterable[Path], params: Params) -> pd.DataFrame:
    """Table 5: numbers of images, beside the paper's (its training images include validation).

    Parameters
    ----------
    folders : iterable of Path
        Folders of data/prepared/.
    params : Params
        For the layouts' options, of which the paper's numbers may depend.
    """
    rows = []
    for folder in folders:
        manifest = read_json(folder / MANIFEST)
        sums = {split: sum(counts.values()) for split, counts in manifest["counts"].items()}
        printed = LAYOUTS[manifest["layout"]].counts(manifest["options"])
        index = pd.read_parquet(folder / index_name("test"), columns=["group"])
        rows.append(
            {
                "dataset": manifest["name"],
                "source": "drawn" if manifest["drawn"] else params.dataset(manifest["name"]).source,
                "classes": len(manifest["class_names"]),
                **sums,
                "groups_test": index["group"].nunique(),
                "paper_train": printed[0] if printed else None,
                "paper_test": printed[1] if printed else None,
            }
        )
    frame = pd.DataFrame(rows, columns=list(TABLE5_COLUMNS))
    return frame.astype({"paper_train": "Int64", "paper_test": "Int64"})


def table6(folders: Iterable[Path], names: Iterable[tuple[str, str]], profile: str) -> pd.DataFrame:
    """Table 6: test accuracy of each classifier with its 95% Wilson interval.

    `discriminator` is a discriminator trained as a classifier alone.

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
        metrics = read_json(folder / METRICS)
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


def ablations(folders: Iterable[Path], base: Path, params: EvaluateParams) -> pd.DataFrame:
    """One dataset and classifier with something changed, beside the decomposition as it is.

    Parameters
    ----------
    folders : iterable of Path
        Folders of results/outcomes/ named `dxai-<variant>`.
    base : Path
        That of the decomposition in which nothing is changed, of the same seed.
    """
    unchanged = read_curve(base, OURS, "part")
    rows = []
    for folder in (base, *folders):
        summary = read_json(folder / SUMMARY)
        row = next(r for r in summary["rows"] if r["method"] == OURS)
        own = read_curve(folder, OURS, "part")
        same = folder == base
        delta = paired_difference([own], [unchanged], params.bootstrap, params.seed)
        values = _row(summary, row, ABLATION_COLUMNS)
        values["variant"] = AS_IT_IS if same else decomposition_of(folder.name)
        if not same:
            values |= dict(zip(("delta", "delta_low", "delta_high"), delta, strict=True))
        rows.append(values)
    return pd.DataFrame(rows, columns=list(ABLATION_COLUMNS))


def localisation(folders: Iterable[Path]) -> pd.DataFrame:
    """How well maps mark what is known to make the class; only where something is known."""
    summaries = [read_json(folder / SUMMARY) for folder in folders]
    rows = [
        _row(summary, row, LOCALISATION_COLUMNS)
        for summary in summaries
        for row in summary["rows"]
        if row.get("known")
    ]
    return _sorted(pd.DataFrame(rows, columns=list(LOCALISATION_COLUMNS)))


def per_class(folders: Iterable[Path], params: EvaluateParams) -> pd.DataFrame:
    """Table 1 for the images of each class alone; only the first sign rule of each method."""
    rows = []
    for folder in folders:
        summary = read_json(folder / SUMMARY)
        row = summary["rows"][0]
        if row["status"] != "ok":
            continue
        images = pd.read_parquet(folder / IMAGES, columns=["index", "label"])
        labels = images.drop_duplicates("index").sort_values("index")["label"].to_numpy()
        whole = read_curve(folder, row["method"], row["sign"])
        groups = np.asarray(whole.groups)
        for label, name in enumerate(summary["class_names"]):
            of = labels == label
            if not of.any():
                continue
            part = Curve(whole.levels, whole.correct[of], groups[of].tolist())
            known = part.accuracy[0] > 0
            low, high = auc_interval(part, params.bootstrap, params.seed) if known else (None, None)
            rows.append(
                _row(summary, row, CLASS_COLUMNS)
                | {"class": name, "images": int(of.sum()), "accuracy": float(part.accuracy[0])}
                | {"auc": part.auc if known else None, "auc_low": low, "auc_high": high}
            )
    return _sorted(pd.DataFrame(rows, columns=list(CLASS_COLUMNS)))


def per_image(folders: Sequence[Path]) -> pd.DataFrame:
    """Every image of each dataset and classifier, the worst explained first.

    Parameters
    ----------
    folders : sequence of Path
        Folders of results/outcomes/.

    Returns
    -------
    DataFrame
        Columns `IMAGE_COLUMNS`. `ours` and `baseline` (the one with the lowest AUC) are areas under
        the probability of the image's own class while the class-distinct part is removed, in
        [0, 1], the higher the worse; ours is the mean over seeds, as are the probabilities
        `before` and `after` all of it is removed, and the uncertainty over z.
    """
    frames = []
    for (dataset, classifier), members in by_cell(folders).items():
        rows = pd.DataFrame([{"folder": f} | row for f, s in members for row in s["rows"]])
        ours = rows[(rows["method"] == OURS) & (rows["status"] == "ok")]
        if ours.empty:
            continue
        best = best_baseline(rows)
        own = [_own_probability(r["folder"], OURS, r["sign"]) for _, r in ours.iterrows()]
        first, names = own[0], members[0][1]["class_names"]
        frame = first[["index", "id", "group", "label"]].assign(
            dataset=dataset, classifier=classifier, seeds=len(own)
        )
        frame["class"] = [names[k] for k in frame["label"]]
        for column in ("area", "before", "after"):
            name = {"area": "ours"}.get(column, column)
            frame[name] = np.mean([f[column].to_numpy() for f in own], axis=0)
        if best is not None:
            found = _own_probability(best["folder"], best["method"], best["sign"])
            frame["baseline"], frame["best_baseline"] = found["area"].to_numpy(), best["method"]
        frame["uncertainty"] = np.mean(
            [_uncertainty(r["folder"]) for _, r in ours.iterrows()], axis=0
        )
        frames.append(frame.sort_values("ours", ascending=False, kind="stable"))
    columns = list(IMAGE_COLUMNS)
    if not frames:
        return pd.DataFrame(columns=columns)
    return pd.concat(frames, ignore_index=True).reindex(columns=columns)


def _own_probability(folder: Path, method: str, sign: str) -> pd.DataFrame:
    """Area under each image's probability of its own class against beta, and both ends of it."""
    outcomes = pd.read_parquet(
        folder / OUTCOMES,
        filters=[("method", "=", method), ("sign", "=", sign), ("curve", "=", "beta")],
    ).sort_values(["index", "level"])
    levels = np.sort(outcomes["level"].unique())
    columns = [name for name in map(str, outcomes) if re.fullmatch(r"p\d+", name)]
    values = outcomes[columns].to_numpy(float)
    own = values[np.arange(len(values)), outcomes["label"]].reshape(-1, len(levels))
    frame = outcomes[["index", "id", "group", "label"]].iloc[:: len(levels)].reset_index(drop=True)
    return frame.assign(area=np.trapezoid(own, levels, axis=1), before=own[:, 0], after=own[:, -1])


def _uncertainty(folder: Path) -> np.ndarray:
    images = pd.read_parquet(folder / IMAGES)
    images = images[images["method"] == OURS].sort_values("index")
    return images.reindex(columns=["uncertainty"])["uncertainty"].to_numpy(float)


def curves(folders: Iterable[Path]) -> pd.DataFrame:
    """Every accuracy curve with its interval, one row a level, for `dvc plots`."""
    rows = []
    for folder in folders:
        summary = read_json(folder / SUMMARY)
        named = {name: summary[name] for name in ("dataset", "classifier", "seed")}
        for row in summary["rows"]:
            for name, drawn in row.get("curves", {}).items():
                shared = named | {"method": row["method"], "sign": row["sign"], "curve": name}
                rows.append(pd.DataFrame(drawn).assign(**shared))
    columns = ["dataset", "classifier", "method", "sign", "seed", "curve"]
    columns += ["level", "accuracy", "low", "high"]
    return pd.concat(rows)[columns] if rows else pd.DataFrame(columns=columns)


def metrics(table: pd.DataFrame, accuracies: pd.DataFrame, found: pd.DataFrame) -> dict[str, Any]:
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
    claims: dict[str, Any] = {}
    for _, claim in found.iterrows():
        place = f"{claim['dataset']}/{claim['classifier']}"
        name = f"{claim['claim']} ({claim['other']})"
        claims.setdefault(f"table{claim['table']}", {}).setdefault(place, {})[name] = {
            key: round(float(claim[key]), 6) for key in ("delta", "delta_low", "delta_high")
        }
    return {"table1": first, "table6": sixth, "claims": claims}


def _row(summary: dict[str, Any], row: dict[str, Any], columns: Iterable[str]) -> dict[str, Any]:
    decomposed = row["method"] in (OURS, *CONTROLS)
    shared = {name: summary[name] for name in ("dataset", "classifier", "seed", "profile")}
    return {
        **{name: row.get(name) for name in columns},
        **{name: value for name, value in shared.items() if name in columns},
        "steps": summary["steps"] if decomposed else None,
        "images": row.get("images", summary["images"]),
    }


def _curve(folders: list[Path], method: str, sign: str, seed: int) -> Curve:
    name = ours_name(seed) if method == OURS else method
    return read_curve(next(f for f in folders if f.name == name), method, sign)


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    order = {method: place for place, method in enumerate(ORDER)}
    keyed = frame.assign(place=frame["method"].map(order))
    # The table's own sign rule first (as written by the stage), the other one after it.
    keyed = keyed.sort_values(["dataset", "classifier", "place", "seed"], kind="stable")
    typed = keyed.drop(columns="place").reset_index(drop=True)
    whole = [name for name in ("steps", "seed", "images") if name in typed]
    return typed.astype(dict.fromkeys(whole, "Int64"))
