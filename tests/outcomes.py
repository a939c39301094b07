"""Small synthetic results, in the format of the evaluating stages, whose tables are known.

Every image is classified correctly at the beginning of a curve; the share `lost` of the images is
wrong from the middle on. The areas are then `beta_area` and `deletion_area`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dxai.metrics.removal import DELETED
from dxai.utils.files import write_json

IMAGES, CLASSES = 60, ("a", "b")
LEVELS = {"beta": np.linspace(0, 1, 11).round(6), "deletion": np.array(DELETED)}
MIDDLE = {"beta": 0.5, "deletion": 0.1}
RIGHT, WRONG = 0.9, 0.2
"""Probability of an image's own class."""
Row = tuple[str, str, Any]
"""Method, sign and the lost share (one for all images, one per class, or a function of the
image); or method, status and reason."""


def beta_area(lost: float) -> float:
    """Return the AUC of Table 1."""
    return 1 - 0.55 * lost


def deletion_area(lost: float) -> float:
    """Return the area of Table 2, at most 0.2."""
    return 0.2 - 0.125 * lost


def thirds(image: int) -> str:
    """Return the group of an image; three neighbours form a group."""
    return f"g{image // 3}"


def outcomes(
    method: str, sign: str, lost: Any, curve: str = "beta", group: Callable[[int], str] = thirds
) -> pd.DataFrame:
    """Make one curve; the first half of the images has class 0, the second class 1."""
    rows = []
    for i in range(IMAGES):
        label = int(i >= IMAGES // 2)
        share = lost[label] if isinstance(lost, tuple) else lost
        gone = lost(i) if callable(lost) else i % 10 < round(10 * share)
        for level in LEVELS[curve]:
            wrong = bool(gone and level >= MIDDLE[curve])
            own = WRONG if wrong else RIGHT
            rows.append(
                {
                    "id": f"i{i}", "group": group(i), "label": label, "index": i,
                    "method": method, "sign": sign, "curve": curve, "level": level,
                    "prediction": 1 - label if wrong else label,
                    f"p{label}": own, f"p{1 - label}": 1 - own,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def write_outcomes(
    root: Path,
    name: str,
    rows: Sequence[Row],
    seed: int = 0,
    dataset: str = "textures",
    classifier: str = "resnet18",
    deletion: Sequence[float] = (),
    group: Callable[[int], str] = thirds,
    **further: Any,
) -> Path:
    """Write a folder of results/outcomes/ and return it.

    `deletion` has the shares lost on the deletion curve, one per row; `further` has columns of
    images.parquet and of every row.
    """
    folder = root / dataset / classifier / name
    folder.mkdir(parents=True)
    frames, images, described = [], [], []
    for index, (method, sign, lost) in enumerate(rows):
        if isinstance(lost, str):
            described.append({"method": method, "sign": "", "status": sign, "reason": lost})
            continue
        frames.append(outcomes(method, sign, lost, group=group))
        mean = frames[-1].groupby("level").apply(lambda f: (f["prediction"] == f["label"]).mean())
        row = {"method": method, "sign": sign, "status": "ok", "reason": "", "images": IMAGES}
        row |= {"balanced_accuracy": 1.0, "classes": 2}
        row |= {"accuracy": 1.0, "auc": float(np.trapezoid(mean, mean.index)), **further}
        if deletion:
            frames.append(outcomes(method, sign, deletion[index], "deletion", group))
            row["auc_deletion"] = deletion_area(deletion[index])
        described.append(row)
        of = frames[-1].drop_duplicates("index")
        images.append(of[["id", "group", "label", "index", "method", "sign"]].assign(**further))
    if frames:
        pd.concat(frames).to_parquet(folder / "outcomes.parquet")
        pd.concat(images).to_parquet(folder / "images.parquet")
    summary = {
        "dataset": dataset, "classifier": classifier, "seed": seed, "profile": "quick",
        "steps": 7, "images": IMAGES, "class_names": list(CLASSES), "seconds": 1.0,
        "rows": described,
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return folder


def write_cross(
    root: Path, trained: str, scorer: str, lost: Any, seed: int = 0, dataset: str = "textures"
) -> Path:
    """Write a folder of the stage `cross` and return it."""
    folder = root / dataset / trained / f"dxai-{seed}-by-{scorer}"
    folder.mkdir(parents=True)
    outcomes("dxai", "part", lost).to_parquet(folder / "outcomes.parquet")
    about = {"dataset": dataset, "trained": trained, "scorer": scorer, "seed": seed}
    write_json(
        folder / "cross.json", about | {"steps": 7, "profile": "quick", "images": IMAGES, "row": {}}
    )
    return folder


def write_stability(
    root: Path,
    ours: dict[int, tuple[float, float]],
    layered: dict[str, tuple[float, float]],
    seeds: Sequence[int] = (0, 1, 2),
    dataset: str = "textures",
    constant: int = 0,
) -> Path:
    """Write a folder of the stage `stability` and return it.

    Each step, or method, has a mean of `std` and of `normalised`, around which images alternate
    by a tenth; of our first `constant` images the second one is NaN.
    """
    folder = root / dataset / "resnet18" / "stability"
    folder.mkdir(parents=True)
    index = np.arange(IMAGES)
    around = 1 + np.where(index % 2, 0.1, -0.1)
    frames = []
    for (method, step), (std, normalised) in [
        *((("dxai", step), means) for step, means in ours.items()),
        *(((method, None), means) for method, means in layered.items()),
    ]:
        frame = pd.DataFrame({"index": index, "id": [f"i{i}" for i in index]})
        frame["group"] = [thirds(i) for i in index]
        frame["normalised"] = normalised * around
        if method == "dxai":
            frame.loc[: constant - 1, "normalised"] = np.nan
        frames.append(frame.assign(method=method, step=step, std=std * around))
    whole = pd.concat(frames, ignore_index=True).astype({"step": "Int64"})
    whole.to_parquet(folder / "images.parquet", index=False)
    about = {"dataset": dataset, "classifier": "resnet18", "profile": "quick"}
    about |= {"seeds": list(seeds), "steps": list(ours), "images": IMAGES, "layers": []}
    write_json(folder / "stability.json", about)
    return folder
