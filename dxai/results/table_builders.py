"""Builders of the tables in `table_specs`, from the folders that the stages wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from dxai.config.schema import Params
from dxai.datasets.registry import LAYOUTS
from dxai.metrics.curves import (
    Curve,
    auc_interval,
    interval,
    mean_areas,
    paired_difference,
    resampled_means,
)
from dxai.metrics.scorer import answers_of
from dxai.paths import (
    CROSS,
    IMAGES,
    LEAKAGE,
    MANIFEST,
    METRICS,
    OUTCOMES,
    RANDOMISATION,
    STABILITY,
    SUMMARY,
    decomposition_of,
    index_name,
)
from dxai.results import paper
from dxai.results.claims import by_case, curves, make_frame, read_curve, read_maps, summary_rows
from dxai.results.definition import best_points
from dxai.results.io import Row
from dxai.results.methods import CONTROLS, NEUTRAL, OURS, best_baseline, rank, succeeded
from dxai.results.validity import CLAIMLESS, validity_of
from dxai.results.verdicts import ALIKE, verdict
from dxai.utils.files import read_json

AS_IT_IS = "as it is"
"""The unchanged variant of the ablation table."""


def table1(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    """Make Table 1 with guards, controls and, for ours, the paired difference to the best baseline.

    `delta_low` and `delta_high` are the 95% interval of our AUC minus that of the baseline with the
    lowest AUC, whatever its sign rule; the controls and the naive optimisation do not count.
    `validity` is that of the dataset and classifier, in each of its rows.
    """
    evaluate, rows = params.evaluate, []
    for members in by_case(outcomes).values():
        found = summary_rows(members)
        best, validity = best_baseline(found), validity_of(found, evaluate.valid_auc)
        bounds: dict[Path, Row] = {}
        if best is not None:
            (other,) = curves([best])
            for row in succeeded(found, OURS):
                (own,) = curves([row])
                _, *ends = paired_difference([own], [other], evaluate.bootstrap, evaluate.seed)
                bounds[row["folder"]] = dict(zip(("delta_low", "delta_high"), ends, strict=True))
        for folder, summary in members:
            for row in summary["rows"]:
                delta = bounds.get(folder, {}) if row["method"] == OURS else {}
                rows.append(_row(summary, row) | delta | {"validity": validity})
    frame = _sorted("table1", rows)
    # Objects are written with all their digits.
    return frame.astype({"delta_low": object, "delta_high": object})


def table2(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    """Make Table 2: area under accuracy / accuracy(0) while up to 20% of the pixels are deleted.

    Not divided by the range, as in the paper: 0.2 means no effect.
    """
    return _sorted(
        "table2",
        [
            _row(summary, row)
            | {"paper": paper.TABLE2.get(summary["dataset"], {}).get(row["method"])}
            for summary, row in _summarised(outcomes)
            if row.get("auc_deletion") is not None
        ],
    )


def table3(cross: Sequence[Path], params: Params) -> pd.DataFrame:
    """Make Table 3: AUC of one classifier's decomposition, scored by each; the mean over seeds."""
    evaluate = params.evaluate
    pairs: dict[tuple[str, str, str], list[tuple[Path, Row]]] = {}
    for folder in cross:
        found = read_json(folder / CROSS)
        pair = (found["dataset"], found["trained"], found["scorer"])
        pairs.setdefault(pair, []).append((folder, found))
    rows = []
    for (dataset, trained, scorer), members in pairs.items():
        own = [read_curve(folder, OURS, "part") for folder, _ in members]
        low, high = interval(mean_areas(own, evaluate.bootstrap, evaluate.seed))
        rows.append(
            members[0][1]
            | {
                "seeds": len(members),
                "auc": float(np.mean([curve.auc for curve in own])),
                "auc_low": low,
                "auc_high": high,
                "paper": paper.TABLE3.get(dataset, {}).get(trained, {}).get(scorer),
            }
        )
    return make_frame("table3", rows)


def table4(stability: Sequence[Path], params: Params) -> pd.DataFrame:
    """Make Table 4: standard deviation over seeds during training, beside layer-based maps.

    `step` is empty for maps over three layers; `constant` counts the images whose maps have no
    range, which `normalised` ignores.
    """
    evaluate, rows = params.evaluate, []
    for folder in stability:
        found = read_json(folder / STABILITY)
        steps, dataset = sorted(found["steps"]), found["dataset"]
        printed = paper.TABLE4.get(dataset, ()) if len(steps) == len(paper.TABLE4_STEPS) else ()
        printed_at = dict(zip(steps, printed, strict=False))
        for named, part in read_maps(folder).groupby(["method", "step"], dropna=False, sort=False):
            method = str(named[0])
            step = int(part["step"].iloc[0]) if method == OURS else None
            values = part[["std", "normalised"]].to_numpy(float)
            groups = part["group"].tolist()
            samples = resampled_means(values, groups, evaluate.bootstrap, evaluate.seed)
            row = {
                **{key: found[key] for key in ("dataset", "classifier", "profile")},
                "method": method,
                "step": step,
                "seeds": len(found["seeds"]) if method == OURS else None,
                "images": len(part),
                "std": float(values[:, 0].mean()),
                "normalised": float(part["normalised"].mean()),
                "constant": int(part["normalised"].isna().sum()),
            }
            for k, name in enumerate(("std", "normalised")):
                known = np.isfinite(samples[:, k]).any()
                ends = interval(samples[:, k]) if known else (np.nan, np.nan)
                row |= dict(zip((f"{name}_low", f"{name}_high"), ends, strict=True))
            if step is not None:
                row["paper"] = printed_at.get(step)
            if step in (None, steps[-1]):
                normalised = paper.TABLE4_NORMALISED.get(dataset, {})
                row["paper_normalised"] = normalised.get(method)
            rows.append(row)
    return make_frame("table4", rows)


def table5(prepared: Sequence[Path], params: Params) -> pd.DataFrame:
    """Make Table 5: numbers of images, beside the paper's (its training includes validation)."""
    rows = []
    for folder in prepared:
        manifest = read_json(folder / MANIFEST)
        printed = LAYOUTS[manifest["layout"]].counts(manifest["options"]) or (None, None)
        index = pd.read_parquet(folder / index_name("test"), columns=["group"])
        rows.append(
            {
                "dataset": manifest["name"],
                "source": "drawn" if manifest["drawn"] else params.dataset(manifest["name"]).source,
                "classes": len(manifest["class_names"]),
                **{split: sum(counts.values()) for split, counts in manifest["counts"].items()},
                "groups_test": index["group"].nunique(),
                "paper_train": printed[0],
                "paper_test": printed[1],
            }
        )
    return make_frame("table5", rows)


def table6(classifiers: Sequence[Path], params: Params) -> pd.DataFrame:
    """Make Table 6: test accuracy of each classifier with its 95% Wilson interval.

    The folders <dataset>/<classifier>/<role> have metrics.json; `discriminator` is a discriminator
    trained as a classifier alone, the twin of C = D.
    """
    rows = []
    for folder in classifiers:
        dataset, name, role = folder.parts[-3:]
        classifier = name if role == "explained" else "discriminator"
        metrics = read_json(folder / METRICS)
        low, high = wilson(metrics["test_accuracy"], metrics["test_images"])
        rows.append(
            {
                "dataset": dataset,
                "classifier": classifier,
                "seed": metrics["seed"],
                "profile": params.profile,
                "images": metrics["test_images"],
                "test_accuracy": metrics["test_accuracy"],
                "accuracy_low": low,
                "accuracy_high": high,
                "paper": paper.TABLE6.get(dataset, {}).get(classifier),
            }
        )
    return make_frame("table6", rows)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95% score interval of a proportion."""
    found = binomtest(round(share * n), n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def definition1(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    """Measure Definition 1: how many images have an undecided point on the ray x - beta psi.

    Each method has a row for each of its rules for the sign, ours two: `dxai`, the generator's psi,
    and `neutral`, that of Eq. 2. `share` is the share of images with entropy >= 0.9 log c at some
    level of beta; `psnr_db` is that of the mean square over all images; the other numbers are means
    at each image's most undecided point.
    """
    evaluate, rows = params.evaluate, []
    means = ["entropy", "beta", "distance", "twin_entropy", "twin_own"]
    for folder in outcomes:
        summary = read_json(folder / SUMMARY)
        for row in (row for row in summary["rows"] if row["status"] == "ok"):
            for method in (OURS, NEUTRAL) if row["method"] == OURS else (row["method"],):
                points = best_points(folder, method, row["sign"])
                if points.empty:
                    continue
                reached = ~points[["missed"]].to_numpy()
                samples = resampled_means(
                    reached, points["group"].tolist(), evaluate.bootstrap, evaluate.seed
                )
                found = points[means].mean().to_dict() | {"share": float(reached.mean())}
                found |= dict(zip(("share_low", "share_high"), interval(samples), strict=True))
                found["psnr_db"] = float(
                    10 * np.log10(4 / np.maximum(points["squared"].mean(), 4e-12))
                )
                rows.append(_row(summary, row) | found | {"method": method})
    return _sorted("definition1", rows)


def ablations(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    """Compare changed decompositions with the unchanged one of the same seed.

    In `outcomes` each dataset and classifier has the unchanged one first, then `dxai-<variant>`.
    """
    evaluate, rows = params.evaluate, []
    for members in by_case(outcomes).values():
        unchanged = read_curve(members[0][0], OURS, "part")
        for k, (folder, summary) in enumerate(members):
            (row,) = (r for r in summary["rows"] if r["method"] == OURS)
            row = _row(summary, row) | {"variant": AS_IT_IS}
            if k:
                own = read_curve(folder, OURS, "part")
                found = paired_difference([own], [unchanged], evaluate.bootstrap, evaluate.seed)
                row |= dict(zip(("delta", "delta_low", "delta_high"), found, strict=True))
                row["variant"] = decomposition_of(folder.name)
            rows.append(row)
    return make_frame("ablations", rows)


def localisation(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    """Measure how well maps mark the parts known to make the class, for datasets that know them."""
    found = [_row(summary, row) for summary, row in _summarised(outcomes)]
    return _sorted("localisation", [row for row in found if row.get("known")])


def leakage(folders: Sequence[Path], params: Params) -> pd.DataFrame:
    """Measure how well a fresh network tells the class from what each method leaves of images.

    `accuracy` is the mean over classes of the share of their test images that are told, so that
    `chance`, one over the number of classes, is that of any answer that does not depend on the
    class. Its 95% interval is a bootstrap over groups.
    """
    evaluate, rows = params.evaluate, []
    for folder in folders:
        found, images = read_json(folder / LEAKAGE), pd.read_parquet(folder / IMAGES)
        for (method, sign), part in images.groupby(["method", "sign"], sort=False):
            labels = part["label"].to_numpy()
            classes = np.unique(labels)
            told = (part["prediction"] == part["label"]).to_numpy(float)
            each = np.where(labels[:, None] == classes, told[:, None], np.nan)
            groups = part["group"].tolist()
            samples = resampled_means(each, groups, evaluate.bootstrap, evaluate.seed)
            low, high = interval(samples.mean(axis=1))  # NaN where a resample lacks a class
            row = {"method": method, "sign": sign, "groups": len(set(groups))}
            row |= {"accuracy": float(np.nanmean(each, axis=0).mean()), "chance": 1 / len(classes)}
            rows.append(found | row | {"accuracy_low": low, "accuracy_high": high})
    return _sorted("leakage", rows)


def randomisation(folders: Sequence[Path], params: Params) -> pd.DataFrame:
    """Average how alike the maps of a classifier are to those with the top `layers` drawn anew.

    For ours, the maps of the ordinary decomposition are compared with those of one that was trained
    for the random classifier shortly, and, as `retrained`, with those of one that was trained for
    the classifier itself as shortly; `delta` is the paired difference of both rank correlations.
    `changes` judges all layers drawn anew: that difference should be below 0, and the rank
    correlation of a baseline below `ALIKE`.
    """
    evaluate, rows = params.evaluate, []
    for folder in folders:
        found, images = read_json(folder / RANDOMISATION), pd.read_parquet(folder / IMAGES)
        reference = images.loc[images["layers"] == 0, "rank"].to_numpy(float)
        for (method, layers), part in images[images["layers"] > 0].groupby(
            ["method", "layers"], sort=False
        ):
            ours, groups = method == OURS, part["group"].tolist()
            values = part[["rank", "ssim", "size"]].to_numpy(float)
            if ours:
                both = np.isfinite(values[:, 0] + reference)
                paired = np.where(both[:, None], np.stack([values[:, 0], reference], 1), np.nan)
                values = np.concatenate([values, paired], 1)
            samples = resampled_means(values, groups, evaluate.bootstrap, evaluate.seed)
            means = pd.DataFrame(values).mean().tolist()  # NaN where no map is known
            row = found | {"method": method, "layers": layers, "groups": len(set(groups))}
            row |= {"changes": "", "images": int(np.isfinite(values[:, 0]).sum()), "size": means[2]}
            for k, name in enumerate(("rank", "ssim")):
                low, high = interval(samples[:, k])
                row |= {name: means[k], f"{name}_low": low, f"{name}_high": high}
            if ours:
                low, high = interval(samples[:, 3] - samples[:, 4])
                row |= {"retrained": means[4], "delta_low": low, "delta_high": high}
                row["changes"] = verdict(low, high)
            elif layers == found["of_layers"]:
                row["changes"] = verdict(row["rank_low"] - ALIKE, row["rank_high"] - ALIKE)
            rows.append(row if ours else row | {"steps": None})
    return _sorted("randomisation", rows)


def per_class(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    """Make Table 1 for the images of each class, with each method's first sign rule only."""
    evaluate, rows = params.evaluate, []
    for folder in outcomes:
        summary = read_json(folder / SUMMARY)
        row = summary["rows"][0]
        if row["status"] != "ok":
            continue
        images = pd.read_parquet(folder / IMAGES, columns=["index", "label"])
        labels = images.drop_duplicates("index").sort_values("index")["label"].to_numpy()
        whole = read_curve(folder, row["method"], row["sign"])
        groups = np.asarray(whole.groups)
        for k, name in enumerate(summary["class_names"]):
            chosen = labels == k
            if not chosen.any():
                continue
            part = Curve(whole.levels, whole.correct[chosen], groups[chosen].tolist())
            values: Row = {"auc": None, "auc_low": None, "auc_high": None}
            if part.accuracy[0] > 0:
                ends = auc_interval(part, evaluate.bootstrap, evaluate.seed)
                values = dict(zip(values, (part.auc, *ends), strict=True))
            about = {"class": name, "images": int(chosen.sum()), **values}
            about["accuracy"] = float(part.accuracy[0])
            rows.append(_row(summary, row) | about)
    return _sorted("per_class", rows)


def per_image(outcomes: Sequence[Path], params: Params) -> pd.DataFrame:
    """List every image of each dataset and classifier, the worst explained first.

    `ours` and `baseline` (the one with the lowest AUC) are areas, in [0, 1], under the probability
    of the image's own class while the class-distinct part is removed; higher is worse. `ours`, the
    probabilities `before` and `after` all of it is removed, and the uncertainty over z are means
    over seeds.
    """
    frames = []
    for (dataset, classifier), members in by_case(outcomes).items():
        rows = summary_rows(members)
        ours, best = succeeded(rows, OURS), best_baseline(rows)
        if not ours:
            continue
        own = [_own_probability(row) for row in ours]
        names = members[0][1]["class_names"]
        frame = own[0][["index", "id", "group", "label"]].assign(
            dataset=dataset, classifier=classifier, seeds=len(own)
        )
        frame["class"] = [names[k] for k in frame["label"]]
        for column, name in (("area", "ours"), ("before", "before"), ("after", "after")):
            frame[name] = np.mean([f[column].to_numpy() for f in own], axis=0)
        if best is not None:
            frame["baseline"] = _own_probability(best)["area"].to_numpy()
            frame["best_baseline"] = best["method"]
        frame["uncertainty"] = np.mean([_uncertainty(row["folder"]) for row in ours], axis=0)
        frames.append(frame.sort_values("ours", ascending=False, kind="stable"))
    return make_frame("per_image", pd.concat(frames, ignore_index=True) if frames else [])


def _own_probability(row: Row) -> pd.DataFrame:
    """Return the area under each image's own-class probability against beta, and both its ends."""
    where = [("method", "=", row["method"]), ("sign", "=", row["sign"]), ("curve", "=", "beta")]
    outcomes = pd.read_parquet(row["folder"] / OUTCOMES, filters=where)
    outcomes = outcomes.sort_values(["index", "level"])
    levels = np.sort(outcomes["level"].unique())
    values = answers_of(outcomes)
    own = values[np.arange(len(values)), outcomes["label"]].reshape(-1, len(levels))
    frame = outcomes[["index", "id", "group", "label"]].iloc[:: len(levels)].reset_index(drop=True)
    return frame.assign(area=np.trapezoid(own, levels, axis=1), before=own[:, 0], after=own[:, -1])


def _uncertainty(folder: Path) -> np.ndarray:
    images = pd.read_parquet(folder / IMAGES)
    images = images[images["method"] == OURS].sort_values("index")
    return images.reindex(columns=["uncertainty"])["uncertainty"].to_numpy(float)


def curve_points(outcomes: Iterable[Path]) -> pd.DataFrame:
    """Return every accuracy curve with its interval, one row per level, for `dvc plots`."""
    names, parts = ["dataset", "classifier", "method", "sign", "seed"], []
    for summary, row in _summarised(outcomes):
        about = {name: (summary | row)[name] for name in names}
        for name, points in row.get("curves", {}).items():
            parts.append(pd.DataFrame(points).assign(**about, curve=name))
    columns = [*names, "curve", "level", "accuracy", "low", "high"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def headlines(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return the headline numbers as nested dicts, for `dvc metrics show`."""
    first: dict[str, Any] = {}
    for row in frames["table1"].to_dict("records"):
        if row["status"] == "ok":
            case = first.setdefault(row["dataset"], {}).setdefault(row["classifier"], {})
            seeded = row["method"] in (OURS, *CONTROLS)
            name = f"{row['method']}-{row['seed']}" if seeded else row["method"]
            signed = "" if row["sign"] == "part" else f"-{row['sign']}"
            case[name + signed] = round(float(row["auc"]), 6)
    sixth: dict[str, Any] = {}
    for row in frames["table6"].to_dict("records"):
        sixth.setdefault(row["dataset"], {})[row["classifier"]] = row["test_accuracy"]
    claims: dict[str, Any] = {}
    for claim in frames["claims"].to_dict("records"):
        case = claims.setdefault(claim["table"], {})
        found: Row = {k: round(float(claim[k]), 6) for k in ("delta", "delta_low", "delta_high")}
        if claim["validity"] in CLAIMLESS:
            found["validity"] = claim["validity"]
        case.setdefault(f"{claim['dataset']}/{claim['classifier']}", {})[
            f"{claim['claim']} ({claim['other']})"
        ] = found
    return {"table1": first, "table6": sixth, "claims": claims}


def _summarised(outcomes: Iterable[Path]) -> Iterator[tuple[Row, Row]]:
    """Yield every row with its summary."""
    for folder in outcomes:
        summary = read_json(folder / SUMMARY)
        for row in summary["rows"]:
            yield summary, row


def _row(summary: Row, row: Row) -> Row:
    """Return a row with the values that its summary has for all rows."""
    decomposed = row["method"] in (OURS, *CONTROLS)
    shared = {name: summary[name] for name in ("dataset", "classifier", "seed", "profile")}
    steps = summary["steps"] if decomposed else None
    return {"images": summary["images"]} | row | shared | {"steps": steps}


def _sorted(name: str, rows: Iterable[Row]) -> pd.DataFrame:
    """Sort rows by method, keeping each method's own sign rule first."""
    return make_frame(
        name,
        sorted(rows, key=lambda r: (r["dataset"], r["classifier"], rank(r["method"]), r["seed"])),
    )
