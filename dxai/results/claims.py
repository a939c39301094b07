"""What the paper claims of each table, tested on what was measured here.

Every claim is a difference, ours less something else, that should be below 0. Its interval comes
from resampling independent groups of images, the same ones for both sides, after averaging over
seeds; "holds" means that the whole 95% interval lies below 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxai.config.schema import EvaluateParams
from dxai.metrics import removal
from dxai.metrics.curves import Curve, interval, mean_areas, paired_difference, resampled_means
from dxai.metrics.scorer import curve
from dxai.paths import CROSS, IMAGES, OUTCOMES, STABILITY, SUMMARY
from dxai.results.methods import BASELINES, CONTROLS, OURS, style
from dxai.utils.files import read_json

COLUMNS = (
    "table", "dataset", "classifier", "claim", "other", "sign", "ours_value", "ours_low",
    "ours_high", "other_value", "delta", "delta_low", "delta_high", "seeds", "images", "groups",
    "holds",
)  # fmt: skip
AREAS = {1: ("auc", "beta"), 2: ("auc_deletion", "deletion")}
"""Table to its column of table1.csv and table2.csv, and the curve behind it."""


def all_claims(
    folders: Sequence[Path],
    cross: Sequence[Path],
    stability: Sequence[Path],
    params: EvaluateParams,
) -> pd.DataFrame:
    """Every claim that the results allow, one a row.

    Parameters
    ----------
    folders, cross, stability : sequence of Path
        Folders as the stages `baseline` and `ours`, `cross` and `stability` write them.
    params : EvaluateParams
        For the number of resamples and their seed.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. `ours_value` is the mean over `seeds` seeds; `other` names what it is
        compared with: the best baseline (Tables 1 and 2), another cell (Table 3), Grad-CAM
        (Table 4).
    """
    rows = [
        *_against_baselines(folders, params),
        *_diagonals(cross, params),
        *_stability(stability, params),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("table", kind="stable")


def best_baseline(rows: pd.DataFrame, column: str = "auc") -> pd.Series | None:
    """The baseline with the lowest area among the rows of one dataset and classifier."""
    rivals = rows[(rows["status"] == "ok") & rows["method"].isin(BASELINES)]
    rivals = rivals[rivals[column].notna()]
    return None if rivals.empty else rivals.iloc[int(rivals[column].astype(float).argmin())]


def read_curve(folder: Path, method: str, sign: str, name: str = "beta") -> Curve:
    """One curve of a folder of results/outcomes/."""
    outcomes = pd.read_parquet(
        folder / OUTCOMES,
        columns=["index", "group", "label", "method", "sign", "curve", "level", "prediction"],
        filters=[("method", "=", method), ("sign", "=", sign), ("curve", "=", name)],
    )
    return curve(outcomes, name)


def by_cell(folders: Iterable[Path]) -> dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]]:
    """Dataset and classifier to their folders and summaries."""
    cells: dict[tuple[str, str], list[tuple[Path, dict[str, Any]]]] = {}
    for folder in folders:
        summary = read_json(folder / SUMMARY)
        place = (summary["dataset"], summary["classifier"])
        cells.setdefault(place, []).append((folder, summary))
    return cells


def _against_baselines(folders: Sequence[Path], params: EvaluateParams) -> Iterator[dict[str, Any]]:
    """Tables 1 and 2: ours against the lowest baseline, and Table 1 against its control."""
    for (dataset, classifier), members in by_cell(folders).items():
        rows = pd.DataFrame(
            [{"folder": f} | row for f, summary in members for row in summary["rows"]]
        )
        named = {"dataset": dataset, "classifier": classifier}
        ours = rows[(rows["method"] == OURS) & (rows["status"] == "ok")]
        if ours.empty:
            continue
        for table, (column, name) in AREAS.items():
            best = best_baseline(rows, column) if column in rows else None
            if best is None:
                continue
            own = [read_curve(r["folder"], OURS, r["sign"], name) for _, r in ours.iterrows()]
            other = read_curve(best["folder"], best["method"], best["sign"], name)
            scale = removal.DELETED[-1] if table == 2 else 1.0
            about = named | {"table": table, "claim": "ours is below the best baseline"}
            about |= {"other": best["method"], "sign": best["sign"]}
            yield about | _difference(own, [other], params, scale)
        controls = rows[(rows["method"] == CONTROLS[-1]) & (rows["status"] == "ok")]
        if not controls.empty:
            own = [read_curve(r["folder"], OURS, r["sign"]) for _, r in ours.iterrows()]
            rest = [read_curve(r["folder"], r["method"], r["sign"]) for _, r in controls.iterrows()]
            about = named | {"table": 1, "claim": "ours is below its own spectrum in random phases"}
            yield about | {"other": CONTROLS[-1], "sign": "part"} | _difference(own, rest, params)


def _diagonals(cross: Sequence[Path], params: EvaluateParams) -> Iterator[dict[str, Any]]:
    """Table 3: explaining a classifier moves that one more than another, in row and column."""
    cells: dict[str, dict[tuple[str, str], list[Curve]]] = {}
    for folder in cross:
        found = read_json(folder / CROSS)
        place = (found["trained"], found["scorer"])
        curves = cells.setdefault(found["dataset"], {}).setdefault(place, [])
        curves.append(read_curve(folder, OURS, "part"))
    for dataset, table in cells.items():
        names = sorted({scorer for _, scorer in table})
        for one in names:
            for other in (name for name in names if name != one):
                pairs = {"row": (one, other), "column": (other, one)}
                for what, place in pairs.items():
                    if (one, one) in table and place in table:
                        yield {
                            "table": 3,
                            "dataset": dataset,
                            "classifier": one,
                            "claim": f"the diagonal is below the rest of its {what}",
                            "other": f"trained for {place[0]}, scored by {place[1]}",
                            "sign": "part",
                        } | _difference(table[one, one], table[place], params)


def _stability(stability: Sequence[Path], params: EvaluateParams) -> Iterator[dict[str, Any]]:
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
                "table": 4,
                "dataset": found["dataset"],
                "classifier": found["classifier"],
                "claim": f"seeds agree more than layers of {style(method).label} do",
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
    """What the stage `stability` measured of each image."""
    return pd.read_parquet(folder / IMAGES)


def _normalised(images: pd.DataFrame, method: str, step: int | None) -> np.ndarray:
    rows = images[images["method"] == method]
    rows = rows[rows["step"].isna() if step is None else rows["step"] == step]
    return rows.sort_values("index")["normalised"].to_numpy(float)


def _difference(
    ours: Sequence[Curve], other: Sequence[Curve], params: EvaluateParams, scale: float = 1.0
) -> dict[str, Any]:
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
        "holds": high < 0,
    }


def _bounds(ours: np.ndarray, delta: np.ndarray) -> dict[str, Any]:
    (own_low, own_high), (low, high) = interval(ours), interval(delta)
    return {
        "ours_low": own_low,
        "ours_high": own_high,
        "delta_low": low,
        "delta_high": high,
        "holds": high < 0,
    }
