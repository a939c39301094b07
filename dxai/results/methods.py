"""The compared methods: their names in tables, their order, and the best baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from dxai.config.schema import METHODS

OURS = "dxai"
NEUTRAL = "neutral"
"""Ours as well: the part that solves Eq. 2, in the folders and in the place of `OURS`."""
NAIVE = "naive"
BASELINES = tuple(method for method in METHODS if method != NAIVE)
"""The methods of the paper that ours is compared with; a user's own are, too."""
RANDOM = "random"
"""The baseline without meaning, which says whether a classifier is brittle. The paper's row has the
sign "relu"; that with "signed" says nothing else, and ours is not compared with it."""
CONTROLS = ("shuffled", "random_phase")
OUTSIDE = (NAIVE, *CONTROLS)
"""Shown but outside the claims: the naive optimisation and the two controls."""
ORDER = (OURS, *BASELINES, *OUTSIDE)
"""The rows of Table 1 in the paper's order; those outside the claims come last."""
LABELS = {
    "dxai": "DXAI (ours)",
    "neutral": "DXAI (ours), neutral",
    "lrp": "LRP",
    "ig": "Integrated Gradients",
    "gradient_shap": "Gradient SHAP",
    "internal_influence": "Internal Influence",
    "guided_gradcam": "Guided Grad-CAM",
    "gradcam": "Grad-CAM",
    "lime": "LIME",
    "random": "Random",
    "naive": "Naive optimisation",
    "shuffled": "Control: shuffled pixels",
    "random_phase": "Control: random phases",
}

RowType = TypeVar("RowType", bound=Mapping[str, Any])


def rank(method: str) -> int:
    """Return a method's index in `ORDER`; an unknown one comes last."""
    method = OURS if method == NEUTRAL else method
    return ORDER.index(method) if method in ORDER else len(ORDER)


def label(method: str) -> str:
    """Return the full name of a method; an unknown one keeps its name."""
    return LABELS.get(method, method)


def is_rival(method: str, sign: str) -> bool:
    """Whether ours is compared with a row: of another's method, but not the signed Random."""
    others = method not in (OURS, NEUTRAL, *OUTSIDE)
    return others and (method, sign) != (RANDOM, "signed")


def is_contested(method: str, sign: str) -> bool:
    """Whether a row may have the lowest number: ours, and those that it is compared with."""
    return method == OURS or is_rival(method, sign)


def succeeded(rows: Iterable[RowType], method: str) -> list[RowType]:
    """Return the rows of a method that was neither unsupported nor failed."""
    return [row for row in rows if row["method"] == method and row["status"] == "ok"]


def best_baseline(rows: Iterable[RowType], column: str = "auc") -> RowType | None:
    """Return the baseline with the lowest value among the rows of one dataset and classifier."""
    rivals = [r for r in rows if r["status"] == "ok" and is_rival(r["method"], r["sign"])]
    known = [r for r in rivals if r.get(column) is not None and not math.isnan(r[column])]
    return min(known, key=lambda row: row[column], default=None)
