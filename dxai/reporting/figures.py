"""Composed pictures as PNG, the same bytes for the same numbers.

Each uses a `Figure` of its own, without pyplot's state or a clock. Text from data is never parsed
as mathematics.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dxai.reporting import image_tiles
from dxai.reporting.styles import BLACK, COLOURS, GRAY

SETTINGS: dict[Any, Any] = {
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
HATCHES = ("", "//", "--", "xx", "\\\\", "++", "||")
"""Hatches of successive series, besides their colours."""
LETTERS = 36
"""Letters that fit side by side below the bars; longer names take turns in two lines."""


def png(figure: Figure) -> bytes:
    """Render a figure of this module as PNG."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def explanation(
    image: np.ndarray,
    agnostic: np.ndarray,
    distinct: np.ndarray,
    probabilities: dict[str, Sequence[float]],
    class_names: Sequence[str],
    target: str,
    neutrality: float,
) -> Figure:
    """Draw one explained image: its parts, and the classifier's probabilities of them.

    `image` is the sum of `agnostic` and `distinct` (of the class `target`), each (C, H, W) for
    images in [-1, 1]. `probabilities` maps the name of each classifier input to its (c,)
    probabilities; of the c `class_names` the six with the highest probability are shown.
    `neutrality` is the entropy of the answer to `agnostic`, as a share of an undecided one's.
    """
    scale = image_tiles.scale_of(distinct)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(8.6, 4.6), layout="constrained")
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.25, 1]).flat
        shown = upper.subplots(1, 3)
        _show(shown[0], image_tiles.picture(image), "input =")
        _show(shown[1], image_tiles.picture(agnostic), "class-agnostic +")
        shown[1].set_xlabel(f"neutrality {neutrality:.2f} (1: the classifier is undecided)")
        _show(shown[2], image_tiles.signed(distinct, scale), f"class-distinct: {_text(target, 18)}")
        shown[2].set_xlabel(f"gray is 0, black and white ±{scale:.2g}")
        _bars(lower.add_subplot(), probabilities, class_names)
        return figure


def _bars(
    axes: Axes, probabilities: dict[str, Sequence[float]], class_names: Sequence[str]
) -> None:
    values = np.asarray(list(probabilities.values()), dtype=float)
    shown = np.sort(np.argsort(-values.max(0), kind="stable")[:6])
    width = 0.84 / len(values)
    for k, (name, row) in enumerate(zip(probabilities, values, strict=True)):
        at = np.arange(len(shown)) + (k - (len(values) - 1) / 2) * width
        look: dict[str, Any] = {
            "color": COLOURS[k],
            "hatch": HATCHES[k],
            "edgecolor": "white",
            "linewidth": 0.6,
        }
        bars = axes.bar(at, row[shown], width, label=name, **look)
        axes.bar_label(bars, fmt="%.2f", fontsize=8)
    names = [_text(class_names[i], 18) for i in shown]
    if sum(map(len, names)) > LETTERS:
        names[1::2] = ["\n" + name for name in names[1::2]]
    axes.set_xticks(range(len(shown)), names)
    axes.set(ylabel="probability", ylim=(0, 1.12), yticks=[0, 0.5, 1])
    axes.grid(False, axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _show(axes: Axes, picture: np.ndarray, title: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _text(name: str, longest: int) -> str:
    """Make a short, printable label of a name; matplotlib would omit one with a leading `_`."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    shown = shown if len(shown) <= longest else shown[: longest - 1] + "…"
    return "\u200b" + shown if shown.startswith("_") else shown
