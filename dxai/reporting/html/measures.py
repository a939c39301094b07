"""Numbers of single images as means with intervals: what is known of the class, uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dxai.config.schema import EvaluateParams
from dxai.metrics.curves import interval, resampled_means
from dxai.reporting.html.results import Cell, read_images
from dxai.reporting.table_layouts import MEASURES, measured
from dxai.results.methods import OURS, STYLES, style

CHANCE = "mask_area"


@dataclass(frozen=True)
class Measured:
    """One line: what it is of, how many images, and a text a column."""

    name: str
    images: int
    values: list[str]
    ours: bool = False


def localised(cell: Cell, params: EvaluateParams) -> list[Measured]:
    """How well each method marks what is known to make the class; columns are `MEASURES`."""
    lines = []
    for method in STYLES:
        sign, folder = cell.primary(method), _folder(cell, method)
        images = pd.DataFrame() if sign is None else read_images(cell.folder / folder, method, sign)
        if CHANCE not in images or not images[list(MEASURES)].notna().any(axis=None):
            continue
        values = mean_intervals(images, list(MEASURES), params)
        known = int(images[list(MEASURES)].notna().any(axis=1).sum())
        lines.append(Measured(style(method).label, known, values, method == OURS))
    return lines


def uncertain(cell: Cell, class_names: Sequence[str], params: EvaluateParams) -> list[Measured]:
    """Uncertainty over z of the images of each class, and of all of them."""
    images = read_images(cell.first, OURS, "part")
    if "uncertainty" not in images or not images["uncertainty"].notna().any():
        return []
    parts = [(name, images[images["label"] == k]) for k, name in enumerate(class_names)]
    return [
        Measured(name, len(part), mean_intervals(part, ["uncertainty"], params))
        for name, part in [*parts, ("all", images)]
        if len(part)
    ]


def mean_intervals(
    images: pd.DataFrame, columns: Sequence[str], params: EvaluateParams
) -> list[str]:
    """The mean of each column with its 95% interval over independent groups."""
    values = images[list(columns)].to_numpy(float)
    samples = resampled_means(values, images["group"].tolist(), params.bootstrap, params.seed)
    found = []
    for k in range(values.shape[1]):
        known = np.isfinite(values[:, k])
        if known.any():
            found.append(measured(float(values[known, k].mean()), *interval(samples[:, k])))
        else:
            found.append(measured(None, None, None))
    return found


def _folder(cell: Cell, method: str) -> str:
    return cell.first.name if method == OURS else method
