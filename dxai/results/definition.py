"""Definition 1 on each image: the most undecided point of the ray x - beta psi, 0 <= beta <= 1.

Everything is read from the outcomes of the evaluating stages, at the levels of beta that they
scored; nothing is interpolated between them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dxai.metrics.removal import UNDECIDED, neutrality
from dxai.metrics.scorer import answers_of
from dxai.paths import IMAGES, OUTCOMES


def best_points(folder: Path, method: str, sign: str) -> pd.DataFrame:
    """Return each image's most undecided point of the ray, the nearest to x among equals.

    Parameters
    ----------
    folder : Path
        Of results/outcomes/, written by the stages `ours` or `baseline`.
    method, sign : str
        Which of its rows.

    Returns
    -------
    DataFrame
        One row per image, ordered by `index`, with `group`; empty if the folder lacks the method.
        Of the best point: `beta`; `entropy` of the classifier over log c, in [0, 1]; `missed`,
        whether that is below `UNDECIDED`; `distance`, d of Eq. 2 to x; `squared`, the mean square
        of what was removed; `twin_entropy`, `twin_lacks`, 1 less it, and `twin_own`, the twin's
        probability of the image's class. The last three are NaN without a twin.
    """
    rows = [("method", "=", method), ("sign", "=", sign)]
    curves = [*rows, ("curve", "in", ["beta", "transfer"])]
    outcomes = _answers(pd.read_parquet(folder / OUTCOMES, filters=curves))
    own, twin = (outcomes[outcomes["curve"] == curve] for curve in ("beta", "transfer"))
    own = own.sort_values(["index", "entropy", "level"], ascending=[True, False, True])
    best = own.drop_duplicates("index")[["index", "group", "level", "entropy"]]
    twin = twin.rename(columns={"entropy": "twin_entropy", "own": "twin_own"})
    twin = twin[["index", "level", "twin_entropy", "twin_own"]]
    parts = pd.read_parquet(folder / IMAGES, filters=rows)
    parts = parts.reindex(columns=["index", "mean_abs_distinct", "psnr_removed_db"])
    found = best.merge(twin, on=["index", "level"], how="left").merge(parts, on="index", how="left")
    found = found.rename(columns={"level": "beta"})
    whole = 4 * 10 ** (-found.pop("psnr_removed_db").astype(float) / 10)
    found["squared"] = found["beta"] ** 2 * whole
    found["distance"] = found["beta"] * found.pop("mean_abs_distinct") + found["squared"]
    found["twin_lacks"] = 1 - found["twin_entropy"]
    return found.assign(missed=~(found["entropy"] >= UNDECIDED))


def _answers(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Add the entropy over log c, and the probability of the image's own class, of each row."""
    answers = answers_of(outcomes)
    return outcomes.assign(
        entropy=neutrality(torch.from_numpy(answers)).numpy(),
        own=answers[np.arange(len(answers)), outcomes["label"].to_numpy(int)],
    )
