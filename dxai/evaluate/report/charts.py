"""The charts of the report, each with a heading and a description in words."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from dxai.evaluate import figures
from dxai.evaluate.names import OURS, style
from dxai.evaluate.report.inline import inline_svg
from dxai.evaluate.report.results import Cell, read_history

CURVES = {
    "beta": ("Accuracy against β", "β, the share of ψ_distinct that is removed"),
    "energy": ("Accuracy against removed energy", "removed energy, ‖γψ‖² / ‖x‖²"),
    "transfer": ("Against β, scored by the second classifier", "β"),
    "blur": ("Against β, after a 3×3 blur of ψ_distinct", "β"),
}
LOSSES = {
    "Adversarial losses": ("loss/adv", "loss/d_real", "loss/d_fake", "loss/r1"),
    "Class losses": ("loss/class", "loss/kld", "loss/neutral"),
    "Reconstruction losses": ("loss/rec", "loss/dis_rec"),
    "PSNR of x̂ on validation images": ("psnr_db",),
}
BARS = 5
"""Values of beta in Fig. 9."""


@dataclass(frozen=True)
class Chart:
    """One chart with its heading."""

    title: str
    svg: Markup


class Drawer:
    """Turns charts into elements of one page."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def chart(self, title: str, svg: bytes, words: str) -> Chart:
        """The chart, described as the title and `words`."""
        return Chart(title, inline_svg(svg, f"{title}. {words}", f"c{next(self._numbers)}-"))


def curve_charts(cell: Cell, seed: int, best: str | None, drawer: Drawer) -> list[Chart]:
    """Accuracy while the class-distinct part is removed, by each way of removing it."""
    charts = []
    for name, (title, xlabel) in CURVES.items():
        lines = cell.curves(name, seed)
        if lines:
            bands = [OURS] if best is None else [OURS, best]
            words = ", ".join(f"{style(m).label} {lines[m]['accuracy'][-1]:.2f}" for m in lines)
            svg = figures.curves(lines, xlabel, bands)
            charts.append(drawer.chart(title, svg, f"At the right end: {words}"))
    return charts


def bar_charts(cell: Cell, seed: int, drawer: Drawer) -> list[Chart]:
    """Fig. 9 for ours: mean probabilities of the images of each class."""
    summary = cell.summaries.get(f"{OURS}-{seed}", {})
    row: dict[str, Any] = next((r for r in summary.get("rows", []) if r["method"] == OURS), {})
    if not row.get("probabilities"):
        return []
    levels = row["curves"]["beta"]["level"]
    shown = np.linspace(0, len(levels) - 1, min(BARS, len(levels))).round().astype(int)
    names = summary["class_names"]
    charts = []
    for name in [n for n in names if n in row["probabilities"]]:
        values = [row["probabilities"][name][i] for i in shown]
        svg = figures.probability_bars(names, [levels[i] for i in shown], values)
        ends = (dict(zip(names, values[i], strict=True)) for i in (0, -1))
        words = "; ".join(
            f"β = {beta:g}: " + ", ".join(f"{n} {p:.2f}" for n, p in end.items())
            for beta, end in zip((levels[0], levels[-1]), ends, strict=True)
        )
        charts.append(drawer.chart(f"Images of class {name}", svg, words))
    return charts


def training_charts(
    classifier: Path, decompositions: dict[int, Path], drawer: Drawer
) -> list[Chart]:
    """How the classifier and each seed's decomposition were trained; what was not logged is absent.

    Parameters
    ----------
    classifier : Path
        Folder of the explained classifier.
    decompositions : dict
        Seed to folder.
    """
    columns = ("train_accuracy", "validation_accuracy")
    charts = _chart(classifier, "Classifier: accuracy", "epoch", columns, "accuracy", drawer)
    for seed, folder in decompositions.items():
        suffix = f", seed {seed}" if len(decompositions) > 1 else ""
        for title, losses in LOSSES.items():
            ylabel = "dB" if losses == ("psnr_db",) else "loss"
            charts += _chart(folder, title + suffix, "step", losses, ylabel, drawer)
    return charts


def _chart(
    folder: Path, title: str, x: str, columns: tuple[str, ...], ylabel: str, drawer: Drawer
) -> list[Chart]:
    history = read_history(folder / "history.csv")
    found = {name: history[name] for name in columns if _logged(history.get(name))}
    if x not in history or not found:
        return []
    series: dict[str, Any] = {_plain(name): values for name, values in found.items()}
    if len(series) == 1 and ylabel == "loss":
        ylabel = f"{next(iter(series))} loss"
    svg = figures.training_curves(history[x], series, x, ylabel)
    words = ", ".join(f"{name} {_last(values):.3g}" for name, values in series.items())
    return [drawer.chart(title, svg, f"At the end: {words}")]


def _logged(values: np.ndarray | None) -> bool:
    """Whether a column says anything: a loss whose weight is 0 does not."""
    return values is not None and bool(np.any(np.nan_to_num(values) != 0))


def _last(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)][-1])


def _plain(column: str) -> str:
    return column.removeprefix("loss/").removesuffix("_accuracy")
