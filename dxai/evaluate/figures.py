"""Charts as SVG and composed pictures as PNG, the same bytes for the same numbers.

Everything is drawn on a `Figure` of its own; no state of pyplot, no clock. Text that comes from
data is never read as mathematics. Charts use one ink colour, `names.BLACK`, on white, so that a
page can swap both for its theme's.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from dxai.evaluate import tiles
from dxai.evaluate.names import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    ORANGE,
    OURS,
    PURPLE,
    SKY,
    STYLES,
    VERMILLION,
    style,
)

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dxai",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "axes.labelsize": 9,
    "text.color": BLACK,
    "axes.labelcolor": BLACK,
    "axes.facecolor": "none",
    "axes.edgecolor": BLACK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRAY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.8,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
}
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, GRAY)
HATCHES = ("", "//", "--", "xx", "\\\\", "++", "||")
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Looks of the first, second ... series; colours and lines, or hatches, do not repeat together."""
MOST_POINTS = 300


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of the given size in inches, under this module's settings."""
    with matplotlib.rc_context(SETTINGS):
        yield Figure(figsize=(width, height), layout="constrained")


def curves(
    lines: dict[str, dict[str, Sequence[float]]],
    xlabel: str,
    bands: Sequence[str] = (OURS,),
) -> bytes:
    """Accuracy of the classifier against what was removed, one line a method, as SVG.

    Parameters
    ----------
    lines : dict
        Method to ``{"level": (n,), "accuracy": (n,), "low": (n,), "high": (n,)}``; accuracies in
        [0, 1], `low` and `high` their 95% interval.
    xlabel : str
        What `level` is.
    bands : sequence of str
        Methods whose interval is drawn. Twelve of them would hide each other.
    """
    with drawing(4.5, 4.6) as figure:
        axes = figure.add_subplot()
        for method in sorted(lines, key=lambda m: list(STYLES).index(m) if m in STYLES else 99):
            _curve(axes, method, lines[method], method in bands)
        axes.set(xlabel=xlabel, ylabel="accuracy of the classifier", ylim=(0, 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.4)
        return _svg(figure)


def _curve(axes: Axes, method: str, line: dict[str, Sequence[float]], band: bool) -> None:
    look = style(method)
    level = line["level"]
    axes.plot(
        level,
        line["accuracy"],
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markersize=4.5,
        linewidth=2.4 if method == OURS else 1.2,
        zorder=3 if method == OURS else 2,
        label=look.label,
    )
    if band:
        axes.fill_between(
            level, line["low"], line["high"], color=look.colour, alpha=0.18, linewidth=0
        )


def probability_bars(
    class_names: Sequence[str], levels: Sequence[float], probabilities: Sequence[Sequence[float]]
) -> bytes:
    """Mean class probabilities while beta grows (Fig. 9 of the paper) for images of one class, SVG.

    Parameters
    ----------
    class_names : sequence of str
        The c classes.
    levels : sequence of float
        The n values of beta, in [0, 1].
    probabilities : (n, c)
        Mean softmax of C(x - beta psi_distinct) over the images.
    """
    values = np.asarray(probabilities, dtype=float)
    classes = len(class_names)
    width = 0.84 / classes
    with drawing(4.5, 2.5 + 0.18 * math.ceil(classes / 3)) as figure:
        axes = figure.add_subplot()
        axes.axhline(1 / classes, color=BLACK, linewidth=0.8, linestyle=":")
        bars = []
        for place in range(classes):
            at = np.arange(len(levels)) + (place - (classes - 1) / 2) * width
            bars.append(axes.bar(at, values[:, place], width, **_bar(place)))
        axes.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
        axes.set(xlabel="β", ylabel="mean probability", ylim=(0, 1))
        axes.grid(False, axis="x")
        _legend(figure, bars, class_names)
        return _svg(figure)


def training_curves(
    steps: ArrayLike, series: Mapping[str, ArrayLike], xlabel: str, ylabel: str
) -> bytes:
    """Values logged while a network was trained, one line a name, as SVG.

    Long histories are thinned to means of neighbouring points; what is not finite leaves a gap.
    """
    with drawing(4.5, 3.0) as figure:
        axes = figure.add_subplot()
        lines = []
        for place, values in enumerate(series.values()):
            x, y = _thinned(steps), _thinned(values)
            lines += axes.plot(x, y, linewidth=1.4, **_line(place, marked=len(x) <= 15))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if len(series) > 1:
            _legend(figure, lines, list(series))
        return _svg(figure)


def explanation(
    image: np.ndarray,
    agnostic: np.ndarray,
    distinct: np.ndarray,
    residual: np.ndarray,
    probabilities: dict[str, Sequence[float]],
    class_names: Sequence[str],
    target: str,
) -> bytes:
    """One explained image as PNG: its parts, and what the classifier makes of them.

    Parameters
    ----------
    image, agnostic, distinct, residual : (C, H, W) float
        x, psi_agnostic, psi_distinct and x - x_hat, of images in [-1, 1].
    probabilities : dict
        Name of what was shown to the classifier to its (c,) probabilities.
    class_names : sequence of str
        The c classes; the six that reach the highest probability are shown.
    target : str
        The class that `distinct` is distinct for.
    """
    scale = tiles.scale_of(distinct)
    small = tiles.scale_of(residual)
    with drawing(8.6, 4.6) as figure:
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.25, 1]).flat
        shown = upper.subplots(1, 4, width_ratios=[1, 1, 1, 0.5])
        _show(shown[0], tiles.picture(image), "input")
        _show(shown[1], tiles.picture(agnostic), "class-agnostic")
        _show(shown[2], tiles.signed(distinct, scale), f"class-distinct: {_text(target, 18)}")
        shown[2].set_xlabel(f"gray is 0, black and white ±{scale:.2g}")
        _show(shown[3], tiles.signed(residual, small), "residual")
        shown[3].set_xlabel(f"±{small:.2g}")
        _bars(lower.add_subplot(), probabilities, class_names)
        return _png(figure, dpi=120)


def _bars(
    axes: Axes, probabilities: dict[str, Sequence[float]], class_names: Sequence[str]
) -> None:
    values = np.asarray(list(probabilities.values()), dtype=float)
    shown = np.sort(np.argsort(-values.max(0), kind="stable")[:6])
    width = 0.84 / len(values)
    for place, (name, row) in enumerate(zip(probabilities, values, strict=True)):
        at = np.arange(len(shown)) + (place - (len(values) - 1) / 2) * width
        bars = axes.bar(at, row[shown], width, label=name, **_bar(place))
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(shown)), [_text(class_names[i], 18) for i in shown])
    axes.set(ylabel="probability", ylim=(0, 1.12), yticks=[0, 0.5, 1])
    axes.grid(False, axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bar(place: int) -> dict[str, Any]:
    """The look of the bars of one series."""
    hatch = HATCHES[(place + place // len(HATCHES)) % len(HATCHES)]
    return {
        "color": COLOURS[place % len(COLOURS)],
        "hatch": hatch,
        "edgecolor": "white",
        "linewidth": 0.6,
    }


def _line(place: int, marked: bool) -> dict[str, Any]:
    """The look of the line of one series."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[place % len(LINES)],
        "marker": MARKERS[place % len(MARKERS)] if marked else None,
    }


def _show(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend below the axes, in as many columns as its longest name allows."""
    shown = [_text(label) for label in labels]
    longest = max(map(len, shown))
    columns = 3 if longest <= 13 else 2 if longest <= 24 else 1
    figure.legend(handles, shown, loc="outside lower center", ncols=columns)


def _text(name: str, longest: int = 48) -> str:
    """A name from data as a label: short, no control characters, not left out for a leading `_`."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return "\u200b" + shown if shown.startswith("_") else shown


def _thinned(values: ArrayLike) -> np.ndarray:
    """At most `MOST_POINTS` means of equal runs of neighbours."""
    numbers = np.asarray(values, dtype=float)
    run = math.ceil(len(numbers) / MOST_POINTS) or 1
    if run == 1:
        return numbers
    padded = np.full(math.ceil(len(numbers) / run) * run, np.nan)
    padded[: len(numbers)] = numbers
    rows = padded.reshape(-1, run)
    counts = np.isfinite(rows).sum(1)
    sums = np.where(np.isfinite(rows), rows, 0).sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A script that this font lacks is drawn by the reader's own.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
