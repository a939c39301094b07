"""Choose the data of each chart in the report, with a heading and a description in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from dxai.paths import HISTORY, ours_name
from dxai.reporting.html import svg_charts
from dxai.reporting.html.case import Case
from dxai.results.io import Row, read_history
from dxai.results.methods import OURS, label, rank

CURVE_TITLES = {
    "beta": ("Accuracy against β", "β, the share of ψ_distinct that is removed"),
    "energy": ("Accuracy against removed energy", "removed energy, ‖γψ‖² / ‖x‖²"),
    "transfer": ("Against β, scored by the second classifier", "β"),
    "transfer_energy": ("Against energy, by the second classifier", "removed energy, ‖γψ‖² / ‖x‖²"),
    "blur": ("Against β, after a 3×3 blur of ψ_distinct", "β"),
    "smooth": ("Against β, by the classifier averaged over noise", "β"),
    "deletion": ("Accuracy while pixels are deleted (Table 2)", "share of the pixels"),
}
LOSSES = {
    "Adversarial losses": ("loss/adv", "loss/adv_real", "loss/adv_fake", "loss/r1"),
    "Class losses": ("loss/class", "loss/kld", "loss/neutral"),
    "Reconstruction losses": ("loss/rec", "loss/dis_rec", "loss/agnostic_rec"),
}
NONE = Markup()
BARS = 5
"""Values of beta in Fig. 9."""
CLASSES = 4
"""Classes with a chart of their own in Fig. 9, and images in the examples."""


@dataclass(frozen=True)
class Chart:
    """One chart with its heading, and a legend unless it shares one."""

    title: str
    svg: Markup
    legend: Markup = NONE


@dataclass(frozen=True)
class Charts:
    """Charts with one legend in common."""

    charts: list[Chart]
    legend: Markup = NONE


def curve_charts(case: Case, seed: int, best: str | None) -> Charts:
    """Plot accuracy while the class-distinct part is removed, by each way of removing it."""
    charts: list[Chart] = []
    shared: dict[str, svg_charts.Series] = {}
    for name, (title, xlabel) in CURVE_TITLES.items():
        found = case.curves(name, seed)
        if not found:
            continue
        order = sorted(found, key=rank)
        series = [_curve(method, found[method], method in (OURS, best)) for method in order]
        shared |= {s.name: s for s in series}
        ends = ", ".join(f"{label(m)} {found[m]['accuracy'][-1]:.2f}" for m in order)
        words = f"{title}. At the right end: {ends}"
        x = found[order[0]]["level"]
        drawn = svg_charts.lines(x, series, xlabel, "accuracy of the classifier", words, (0, 1.03))
        charts.append(Chart(title, drawn))
    return Charts(charts, svg_charts.legend(shared.values()) if charts else NONE)


def _curve(method: str, line: dict[str, Any], band: bool) -> svg_charts.Series:
    bounds = {"low": line["low"], "high": line["high"]} if band else {}
    return svg_charts.of_method(method, line["accuracy"], **bounds)


def bar_charts(case: Case, seed: int) -> Charts:
    """Plot Fig. 9 for ours: mean probabilities of the images of each class."""
    summary = case.summaries.get(ours_name(seed), {})
    row: dict[str, Any] = next((r for r in summary.get("rows", []) if r["method"] == OURS), {})
    if not row.get("probabilities"):
        return Charts([])
    levels = row["curves"]["beta"]["level"]
    shown = np.linspace(0, len(levels) - 1, min(BARS, len(levels))).round().astype(int)
    names = summary["class_names"]
    charts = []
    for name in [n for n in names if n in row["probabilities"]][:CLASSES]:
        values = np.array([row["probabilities"][name][i] for i in shown])
        ends = (dict(zip(names, values[i], strict=True)) for i in (0, -1))
        words = "; ".join(
            f"β = {beta:g}: " + ", ".join(f"{n} {p:.2f}" for n, p in end.items())
            for beta, end in zip((levels[0], levels[-1]), ends, strict=True)
        )
        title = f"Images of class {name}"
        drawn = svg_charts.bars(names, [levels[i] for i in shown], values, "β", f"{title}. {words}")
        charts.append(Chart(title, drawn))
    return Charts(charts, svg_charts.bar_legend(names))


def training_charts(classifier: Path, decompositions: dict[int, Path]) -> list[Chart]:
    """Plot the training of a classifier and of its decompositions, omitting unlogged columns.

    `decompositions` maps seeds to folders: losses are those of the first, x_hat of every one.
    """
    columns = ("train_accuracy", "validation_accuracy")
    history = _columns(classifier / HISTORY)
    charts = _history(history, "Classifier: accuracy", "epoch", columns, "accuracy")
    histories = {s: _columns(f / HISTORY) for s, f in decompositions.items()}
    seed, history = next(iter(histories.items()))
    suffix = f", seed {seed}" if len(histories) > 1 else ""
    for title, losses in LOSSES.items():
        charts += _history(history, title + suffix, "step", losses, "loss")
    psnr = {f"seed {s}": h["psnr_db"] for s, h in histories.items() if _logged(h.get("psnr_db"))}
    steps = next((h["step"] for h in histories.values() if "step" in h), np.zeros(0))
    alike = {name: values for name, values in psnr.items() if len(values) == len(steps)}
    if alike:
        charts.append(_chart("PSNR of x̂ on validation images", steps, alike, "step", "dB"))
    return charts


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Read a training's history as columns, NaN where nothing was logged; empty without a file."""
    rows = read_history(path) if path.is_file() else []
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}


def stability_chart(rows: list[Row]) -> Chart | None:
    """Plot deviation over seeds by training step (Table 4), a line a dataset and classifier."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["method"] == OURS:
            found.setdefault(f"{row['dataset']} · {row['classifier']}", []).append(row)
    steps = sorted({row["step"] for of in found.values() for row in of})
    if len(steps) < 2:
        return None
    series = []
    for k, (name, of) in enumerate(found.items()):
        by = {row["step"]: row for row in of}
        values, low, high = (
            np.array([by.get(step, {}).get(key) for step in steps], float)
            for key in ("std", "std_low", "std_high")
        )
        line = svg_charts.nth_series(name, k, values, marked=True)
        if np.isfinite([*low, *high]).all():
            line = replace(line, low=low, high=high)
        series.append(line)
    title = "Deviation over seeds against the training step"
    ends = ", ".join(f"{s.name} {s.values[0]:.3f} to {s.values[-1]:.3f}" for s in series)
    top = np.nanmax([s.values if s.high is None else s.high for s in series])
    words = f"{title}. From the first to the last step: {ends}"
    limits = (0.0, 1.05 * float(top))
    drawn = svg_charts.lines(steps, series, "training step", "deviation", words, limits, log=True)
    return Chart(title, drawn, svg_charts.legend(series))


def randomisation_charts(rows: list[Row]) -> Charts:
    """Plot the likeness of each heatmap by the share of layers drawn anew, a chart a case."""
    cases: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        methods = cases.setdefault(f"{row['dataset']} · {row['classifier']}", {})
        methods.setdefault(row["method"], []).append(row)
    charts: list[Chart] = []
    shared: dict[str, svg_charts.Series] = {}
    for case, methods in cases.items():
        depths = [row["layers"] for row in max(methods.values(), key=len)]
        if len(depths) < 2:
            continue
        lines = {name: of for name, of in methods.items() if len(of) == len(depths)}
        ranks = {
            name: np.array([1, *(row["rank"] for row in of)], float) for name, of in lines.items()
        }
        series = [svg_charts.of_method(name, rank.tolist()) for name, rank in ranks.items()]
        shared |= {s.name: s for s in series}
        x = [0.0, *(layers / depths[-1] for layers in depths)]
        title = f"Likeness against the layers drawn anew: {case}"
        words = f"{title}. With all of them: " + ", ".join(
            f"{s.name} {s.values[-1]:.2f}" for s in series
        )
        low = min(0.0, *(np.nanmin(s.values) for s in series))
        label_x = "share of the layers, from the top"
        drawn = svg_charts.lines(x, series, label_x, "rank correlation", words, (float(low), 1.05))
        charts.append(Chart(title, drawn))
    return Charts(charts, svg_charts.legend(shared.values()) if charts else NONE)


def _history(
    history: dict[str, np.ndarray], title: str, x: str, columns: tuple[str, ...], ylabel: str
) -> list[Chart]:
    found = {
        name.removeprefix("loss/").removesuffix("_accuracy"): history[name]
        for name in columns
        if _logged(history.get(name))
    }
    if x not in history or not found:
        return []
    return [_chart(title, history[x], found, x, ylabel)]


def _chart(
    title: str, x: np.ndarray, found: dict[str, np.ndarray], xlabel: str, ylabel: str
) -> Chart:
    steps = svg_charts.thinned(x)
    series = [
        svg_charts.nth_series(name, k, svg_charts.thinned(values), marked=len(steps) <= 15)
        for k, (name, values) in enumerate(found.items())
    ]
    last = {name: values[np.isfinite(values)][-1] for name, values in found.items()}
    ends = ", ".join(f"{name} {value:.3g}" for name, value in last.items())
    drawn = svg_charts.lines(steps, series, xlabel, ylabel, f"{title}. At the end: {ends}")
    return Chart(title, drawn, svg_charts.legend(series))


def _logged(values: np.ndarray | None) -> bool:
    """Whether a column has nonzero values; a loss with weight 0 has none."""
    return values is not None and bool(np.any(np.nan_to_num(values) != 0))
