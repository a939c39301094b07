"""The paper's claims about each table, tested on the results of a run.

A claim is a difference, ours minus something else, that should be below 0. Its interval comes from
resampling independent groups of images, the same ones for both sides, after averaging over seeds;
"holds" means that the whole 95% interval is below 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dxai.config.schema import EvaluateParams, Params
from dxai.metrics import removal
from dxai.metrics.curves import Curve, interval, mean_areas, paired_difference, resampled_means
from dxai.metrics.scorer import curve
from dxai.paths import CROSS, IMAGES, OUTCOMES, STABILITY, SUMMARY
from dxai.results.io import Row
from dxai.results.methods import CONTROLS, OURS, best_baseline, label, succeeded
from dxai.results.table_specs import SPECS
from dxai.results.verdicts import BEST, HOLDS, verdict
from dxai.utils.files import read_json

AREAS = {"table1": ("auc", "beta"), "table2": ("auc_deletion", "deletion")}
"""Maps a table to its column of areas, and the curve behind it."""


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
        baseline (Tables 1 and 2), another classifier (Table 3), Grad-CAM (Table 4).
    """
    rows = [
        *_against_baselines(outcomes, params.evaluate),
        *_diagonals(cross, params.evaluate),
        *_stability(stability, params.evaluate),
    ]
    order = list(SPECS)
    return make_frame("claims", sorted(rows, key=lambda row: order.index(row["table"])))


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
            both = np.stack([ours, other], 1)
            samples = resampled_means(both, groups, params.bootstrap, params.seed)
            means = np.nanmean(both, 0)
            yield {
                "table": "table4",
                "dataset": found["dataset"],
                "classifier": found["classifier"],
                "claim": f"seeds agree more than layers of {label(method)} do",
                "other": method,
                "sign": "relu",
                "ours_value": means[0],
                "other_value": means[1],
                "delta": means[0] - means[1],
                "seeds": len(found["seeds"]),
                "images": len(groups),
                "groups": len(set(groups)),
            } | _bounds(samples[:, 0], samples[:, 0] - samples[:, 1])


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


def _bounds(ours: np.ndarray, delta: np.ndarray) -> Row:
    (own_low, own_high), (low, high) = interval(ours), interval(delta)
    return {
        "ours_low": own_low,
        "ours_high": own_high,
        "delta_low": low,
        "delta_high": high,
        "holds": verdict(low, high) == HOLDS,
    }
