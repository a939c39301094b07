"""The paper's claims about each table, tested on the results of a run.

A claim is a difference, ours minus something else, that should be below 0. Its interval comes from
resampling independent groups of images, the same ones for both sides, after averaging over seeds;
"holds" means that the whole 95% interval is below 0, and that no classifier behind it is brittle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dxai.config.schema import EvaluateParams, Params
from dxai.metrics import removal
from dxai.metrics.curves import Curve, interval, mean_areas, paired_difference, resampled_means
from dxai.metrics.scorer import curve
from dxai.paths import CROSS, IMAGES, OUTCOMES, STABILITY, SUMMARY
from dxai.results.definition import best_points
from dxai.results.io import Row
from dxai.results.methods import (
    BASELINES,
    CONTROLS,
    NAIVE,
    NEUTRAL,
    OURS,
    best_baseline,
    is_rival,
    label,
    succeeded,
)
from dxai.results.table_specs import SPECS
from dxai.results.validity import CLAIMLESS, NOT_KNOWN, validity_of, weakest
from dxai.results.verdicts import BEST, HOLDS, verdict
from dxai.utils.files import read_json

AREAS = {"table1": ("auc", "beta"), "table2": ("auc_deletion", "deletion")}
"""Maps a table to its column of areas, and the curve behind it."""
UNASKED = ("table4",)
"""Tables that compare maps: what the classifier says of a changed image has no part in them."""


def all_claims(
    outcomes: Sequence[Path], cross: Sequence[Path], stability: Sequence[Path], params: Params
) -> pd.DataFrame:
    """Return every claim that the results allow, one per row.

    Parameters
    ----------
    outcomes, cross, stability : sequence of Path
        Folders written by the stages `baseline` and `ours`, `cross`, and `stability`.
    params : Params
        Sets the number of resamples and their seed.

    Returns
    -------
    DataFrame
        `ours_value` is the mean over `seeds` seeds; `other` names the other side: the best
        baseline (Tables 1 and 2, Definition 1), another classifier (Table 3), Grad-CAM (Table 4),
        the naive optimisation (Definition 1). `validity` is that of the classifiers behind it;
        empty where they are not asked.
    """
    rows = [
        *_against_baselines(outcomes, params.evaluate),
        *_definition(outcomes, params.evaluate),
        *_diagonals(cross, params.evaluate),
        *_stability(stability, params.evaluate),
    ]
    known = {
        case: validity_of(summary_rows(members), params.evaluate.valid_auc)
        for case, members in by_case(outcomes).items()
    }
    for row in rows:
        row["validity"] = "" if row["table"] in UNASKED else _validity(row, known)
        row["holds"] = row["holds"] and row["validity"] not in CLAIMLESS
    order = list(SPECS)
    return make_frame("claims", sorted(rows, key=lambda row: order.index(row["table"])))


def _validity(row: Row, known: Mapping[tuple[str, str], str]) -> str:
    names = row.get("classifiers", [row["classifier"]])
    return weakest(known.get((row["dataset"], name), NOT_KNOWN) for name in names)


def make_frame(name: str, rows: Iterable[Row] | pd.DataFrame) -> pd.DataFrame:
    """Return a table's rows with the columns of the registry, whole numbers as Int64."""
    spec = SPECS[name]
    data = rows if isinstance(rows, pd.DataFrame) else list(rows)
    frame = pd.DataFrame(data, columns=spec.names)
    return frame.astype({c.name: "Int64" for c in spec.columns if c.type == "count"})


def read_curve(folder: Path, method: str, sign: str, name: str = "beta") -> Curve:
    """Read one curve of a folder of results/outcomes/."""
    outcomes = pd.read_parquet(
        folder / OUTCOMES,
        columns=["index", "group", "label", "method", "sign", "curve", "level", "prediction"],
        filters=[("method", "=", method), ("sign", "=", sign), ("curve", "=", name)],
    )
    return curve(outcomes, name)


def by_case(folders: Iterable[Path]) -> dict[tuple[str, str], list[tuple[Path, Row]]]:
    """Map dataset and classifier to their folders and summaries."""
    cases: dict[tuple[str, str], list[tuple[Path, Row]]] = {}
    for folder in folders:
        summary = read_json(folder / SUMMARY)
        cases.setdefault((summary["dataset"], summary["classifier"]), []).append((folder, summary))
    return cases


def summary_rows(members: Iterable[tuple[Path, Row]]) -> list[Row]:
    """Return the rows of several summaries, each with its `folder`."""
    return [{"folder": folder} | row for folder, summary in members for row in summary["rows"]]


def _against_baselines(folders: Sequence[Path], params: EvaluateParams) -> Iterator[Row]:
    """Tables 1 and 2: ours against the best baseline, and Table 1 against its control."""
    for (dataset, classifier), members in by_case(folders).items():
        rows = summary_rows(members)
        case = {"dataset": dataset, "classifier": classifier}
        ours, controls = succeeded(rows, OURS), succeeded(rows, CONTROLS[-1])
        if not ours:
            continue
        for table, (column, name) in AREAS.items():
            best = best_baseline(rows, column)
            if best is None:
                continue
            scale = removal.DELETED[-1] if table == "table2" else 1.0
            about = case | {"table": table, "claim": BEST}
            about |= {"other": best["method"], "sign": best["sign"]}
            yield about | _difference(curves(ours, name), curves([best], name), params, scale)
        if controls:
            about = case | {
                "table": "table1",
                "claim": "ours is below its own spectrum in random phases",
            }
            about |= {"other": CONTROLS[-1], "sign": "part"}
            yield about | _difference(curves(ours), curves(controls), params)


def _definition(folders: Sequence[Path], params: EvaluateParams) -> Iterator[Row]:
    """Definition 1: psi on its ray against a baseline's, and Eq. 2 against solving it for pixels.

    The last is judged by the twin, since both leave the classifier itself undecided.
    """
    for (dataset, classifier), members in by_case(folders).items():
        rows = summary_rows(members)
        rivals = [row for method in BASELINES for row in succeeded(rows, method)]
        rivals = [row for row in rivals if is_rival(row["method"], row["sign"])]
        naive = succeeded(rows, NAIVE)[:1]
        for column, method, others, claim in (
            ("missed", OURS, rivals, "fewer images without an undecided point"),
            ("twin_lacks", NEUTRAL, naive, "neutral: the twin lacks less entropy"),
        ):
            own = [best_points(row["folder"], method, "part") for row in succeeded(rows, OURS)]
            own = [points for points in own if points[column].notna().any()]
            found = [(best_points(r["folder"], r["method"], r["sign"]), r) for r in others]
            found = [(points, row) for points, row in found if points[column].notna().any()]
            if not own or not found:
                continue
            points, other = min(found, key=lambda pair: float(pair[0][column].mean()))
            about = {"dataset": dataset, "classifier": classifier, "claim": claim}
            about |= {"table": "definition1", "other": other["method"], "sign": other["sign"]}
            mean = np.mean([part[column].to_numpy(float) for part in own], axis=0)
            groups = points["group"].tolist()
            yield (
                about
                | {"seeds": len(own)}
                | _paired(mean, points[column].to_numpy(float), groups, params)
            )


def curves(rows: Iterable[Row], name: str = "beta") -> list[Curve]:
    """Read the curve of each of these rows of `summary_rows`."""
    return [read_curve(row["folder"], row["method"], row["sign"], name) for row in rows]


def _diagonals(cross: Sequence[Path], params: EvaluateParams) -> Iterator[Row]:
    """Table 3: explaining a classifier changes it more than another one, in row and column."""
    squares: dict[str, dict[tuple[str, str], list[Curve]]] = {}
    for folder in cross:
        found = read_json(folder / CROSS)
        pair = (found["trained"], found["scorer"])
        found_curves = squares.setdefault(found["dataset"], {}).setdefault(pair, [])
        found_curves.append(read_curve(folder, OURS, "part"))
    for dataset, square in squares.items():
        names = sorted({scorer for _, scorer in square})
        for one in names:
            for other in (name for name in names if name != one):
                pairs = {"row": (one, other), "column": (other, one)}
                for line, pair in pairs.items():
                    if (one, one) in square and pair in square:
                        yield {
                            "table": "table3",
                            "dataset": dataset,
                            "classifier": one,
                            "classifiers": [one, other],
                            "claim": f"the diagonal is below the rest of its {line}",
                            "other": f"trained for {pair[0]}, scored by {pair[1]}",
                            "sign": "part",
                        } | _difference(square[one, one], square[pair], params)


def _stability(stability: Sequence[Path], params: EvaluateParams) -> Iterator[Row]:
    """Table 4: after all steps, seeds agree more than the layers of Grad-CAM do."""
    for folder in stability:
        found, images = read_json(folder / STABILITY), read_maps(folder)
        if len(found["seeds"]) < 2:
            continue
        last = max(found["steps"])
        groups = images[images["step"] == last]["group"].tolist()
        ours = _normalised(images, OURS, last)
        for method in ("gradcam", "internal_influence"):
            if method not in set(images["method"]):
                continue
            other = _normalised(images, method, None)
            yield {
                "table": "table4",
                "dataset": found["dataset"],
                "classifier": found["classifier"],
                "claim": f"seeds agree more than layers of {label(method)} do",
                "other": method,
                "sign": "relu",
                "seeds": len(found["seeds"]),
            } | _paired(ours, other, groups, params)


def read_maps(folder: Path) -> pd.DataFrame:
    """Read each image's deviations as measured by the stage `stability`."""
    return pd.read_parquet(folder / IMAGES)


def _normalised(images: pd.DataFrame, method: str, step: int | None) -> np.ndarray:
    rows = images[images["method"] == method]
    rows = rows[rows["step"].isna() if step is None else rows["step"] == step]
    return rows.sort_values("index")["normalised"].to_numpy(float)


def _difference(
    ours: Sequence[Curve], other: Sequence[Curve], params: EvaluateParams, scale: float = 1.0
) -> Row:
    delta, low, high = paired_difference(ours, other, params.bootstrap, params.seed)
    own_low, own_high = interval(mean_areas(ours, params.bootstrap, params.seed))
    return {
        "ours_value": scale * float(np.mean([c.auc for c in ours])),
        "ours_low": scale * own_low,
        "ours_high": scale * own_high,
        "other_value": scale * float(np.mean([c.auc for c in other])),
        "delta": scale * delta,
        "delta_low": scale * low,
        "delta_high": scale * high,
        "seeds": len(ours),
        "images": len(ours[0].correct),
        "groups": len(set(ours[0].groups)),
        "holds": verdict(low, high) == HOLDS,
    }


def _paired(
    ours: np.ndarray, other: np.ndarray, groups: Sequence[str], params: EvaluateParams
) -> Row:
    """Compare the means of two numbers of each image, (N,); NaNs are ignored."""
    both = np.stack([ours, other], 1)
    samples = resampled_means(both, groups, params.bootstrap, params.seed)
    means = np.nanmean(both, 0)
    own_low, own_high = interval(samples[:, 0])
    low, high = interval(samples[:, 0] - samples[:, 1])
    return {
        "ours_value": means[0],
        "other_value": means[1],
        "delta": means[0] - means[1],
        "images": len(groups),
        "groups": len(set(groups)),
        "ours_low": own_low,
        "ours_high": own_high,
        "delta_low": low,
        "delta_high": high,
        "holds": verdict(low, high) == HOLDS,
    }
