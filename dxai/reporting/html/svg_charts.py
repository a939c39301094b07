"""Draw charts as small SVG elements of the page, which follow its theme and render fast.

Coordinates are pixels of a chart of `WIDTH` x `HEIGHT`. Every series has a marker, a dash or a
hatching besides its colour. Names from data are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from dxai.reporting.styles import BLACK, COLOURS, style
from dxai.results.methods import OURS, label

WIDTH, HEIGHT = 360, 232
LEFT, RIGHT, TOP, BOTTOM = 46, 342, 10, 192
"""The frame of the axes."""
MOST_POINTS = 150
DASHES = {"-": "", "--": "6 3", "-.": "6 3 1.5 3", ":": "1.5 3"}
MARKERS = {
    "o": "m-2.6 0a2.6 2.6 0 1 0 5.2 0a2.6 2.6 0 1 0-5.2 0",
    ".": "m-1.5 0a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0-3 0",
    "s": "m-2.3-2.3h4.6v4.6h-4.6z",
    "^": "m0-3l2.8 5h-5.6z",
    "v": "m0 3l2.8-5h-5.6z",
    "<": "m-3 0l5-2.8v5.6z",
    ">": "m3 0l-5-2.8v5.6z",
    "D": "m0-3l3 3l-3 3l-3-3z",
    "P": "m-1-3h2v2h2v2h-2v2h-2v-2h-2v-2h2z",
    "X": "m-3-1.6l1.4-1.4l1.6 1.6l1.6-1.6l1.4 1.4l-1.6 1.6l1.6 1.6l-1.4 1.4l-1.6-1.6l-1.6 1.6"
    "l-1.4-1.4l1.6-1.6z",
    "*": "m0-3.6l1 2.4l2.5.2l-1.9 1.7l.6 2.5l-2.2-1.4l-2.2 1.4l.6-2.5l-1.9-1.7l2.5-.2z",
    "x": "m-2.5-2.5l5 5m0-5l-5 5",
    "+": "m-3 0h6m-3-3v6",
}
HATCHES = ("", "M0 6L6 0", "M0 3H6", "M0 0L6 6M0 6L6 0", "M0 0L6 6", "M3 0V6M0 3H6", "M3 0V6")


@dataclass(frozen=True)
class Series:
    """One line: its values (NaN leaves a gap), its style, and an optional interval."""

    name: str
    values: Sequence[float] | np.ndarray
    colour: str
    marker: str = ""
    dash: str = ""
    width: float = 1.3
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None


def of_method(method: str, values: Sequence[float], **bounds: Sequence[float]) -> Series:
    look = style(method)
    width = 2.4 if method == OURS else 1.3
    return Series(
        label(method), values, look.colour, look.marker, DASHES[look.line], width, **bounds
    )


def nth_series(name: str, k: int, values: Sequence[float] | np.ndarray, marked: bool) -> Series:
    """Make the k-th of several lines that have no style of their own."""
    dash = list(DASHES.values())[k % len(DASHES)]
    marker = list(MARKERS)[k % len(MARKERS)] if marked else ""
    return Series(name, values, COLOURS[k % len(COLOURS)], marker, dash, 1.5)


def lines(
    x: Sequence[float] | np.ndarray,
    series: Sequence[Series],
    xlabel: str,
    ylabel: str,
    words: str,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Markup:
    """Plot lines over a common x; the y axis spans `limits`, or else the values.

    `words` describes the chart for screen readers. With `log`, x is above 0, on a logarithmic scale
    with a tick at each value.
    """
    at = np.log10(np.asarray(x, float)) if log else np.asarray(x, float)
    reach = [v for s in series for v in (s.values, s.low, s.high) if v is not None]
    known = np.concatenate([np.asarray(v, float) for v in reach])
    known = known[np.isfinite(known)]
    low, high = limits or (float(known.min()), float(known.max()))
    yticks = ticks(low, high)
    low, high = (low, high) if limits else (min(low, yticks[0]), max(high, yticks[-1]))
    across = _scale(float(at.min()), float(at.max()), LEFT, RIGHT)
    up = _scale(low, high, BOTTOM, TOP)
    shown = np.asarray(x, float) if log else np.array(ticks(float(at.min()), float(at.max())))
    marks = list(zip(across(np.log10(shown) if log else shown), map(number, shown), strict=True))
    parts = [_axes(marks, list(zip(up(yticks), map(number, yticks), strict=True)))]
    parts += [_band(across(at), up, s) for s in series if s.low is not None]
    parts += [_line(across(at), up, s) for s in series]
    return _svg(parts, xlabel, ylabel, words)


def bars(
    names: Sequence[str], levels: Sequence[float], values: np.ndarray, xlabel: str, words: str
) -> Markup:
    """Plot `values` (levels, names) in [0, 1], a group of bars a level; dotted: chance."""
    up = _scale(0, 1, BOTTOM, TOP)
    step = (RIGHT - LEFT) / len(levels)
    width = 0.84 * step / len(names)
    centres = LEFT + step * (np.arange(len(levels)) + 0.5)
    marks = list(zip(centres, (f"{level:g}" for level in levels), strict=True))
    yticks = ticks(0, 1)
    parts = [_axes(marks, list(zip(up(yticks), map(number, yticks), strict=True)))]
    for k in range(len(names)):
        left = centres + (k - len(names) / 2) * width
        tops = up(values[:, k])
        path = "".join(
            f"M{x:.1f} {BOTTOM}V{y:.1f}h{width:.1f}V{BOTTOM}z"
            for x, y in zip(left, tops, strict=True)
        )
        parts.append(_filled(path, k))
    chance = up(1 / len(names))
    parts.append(f'<path d="M{LEFT} {chance:.1f}H{RIGHT}" class="ink" stroke-dasharray="1.5 3"/>')
    return _svg(parts, xlabel, "mean probability", words)


def legend(series: Iterable[Series]) -> Markup:
    return _legend(
        (f'<path d="M1 7H27" {_stroke(s)}/>{_marks([14.0], [7.0], s)}', s.name) for s in series
    )


def bar_legend(names: Sequence[str]) -> Markup:
    return _legend((_filled("M1 2H27V12H1z", k), name) for k, name in enumerate(names))


def _legend(items: Iterable[tuple[str, str]]) -> Markup:
    shown = "".join(
        f'<li><svg viewBox="0 0 28 14">{picture}</svg>{escape(name)}</li>'
        for picture, name in items
    )
    return Markup(f'<ul class="legend">{shown}</ul>')


def hatchings() -> Markup:
    """Define the hatchings that bars refer to, once a page."""
    patterns = "".join(
        f'<pattern id="hatch-{k}" width="6" height="6" patternUnits="userSpaceOnUse">'
        f'<path d="{path}" stroke="#fff" stroke-width="1.1" fill="none"/></pattern>'
        for k, path in enumerate(HATCHES)
        if path
    )
    return Markup(
        f'<svg width="0" height="0" class="hidden" aria-hidden="true"><defs>{patterns}</defs></svg>'
    )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return up to `most` + 1 round numbers in [low, high], or next to it if it is a point."""
    span = high - low or abs(high) or 1.0
    base = 10.0 ** math.floor(math.log10(span / most))
    step = next(base * k for k in (1, 2, 2.5, 5, 10, 20) if span / (base * k) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    found = [k * step for k in range(first, last + 1)]
    return found if len(found) > 1 else [first * step - step, first * step, first * step + step]


def number(value: float) -> str:
    """Format a tick's label, short: 300k."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.6g}".replace("-", "−")


def thinned(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Reduce values to at most `MOST_POINTS` means of equal runs of neighbours."""
    numbers = pd.Series(np.asarray(values, float)).replace([np.inf, -np.inf], np.nan)
    run = math.ceil(len(numbers) / MOST_POINTS) or 1
    return numbers.groupby(np.arange(len(numbers)) // run).mean().to_numpy()


def _scale(low: float, high: float, first: float, last: float) -> Callable[[Any], np.ndarray]:
    """Return the linear map of [low, high] to pixels."""
    span = high - low or 1.0
    slope, start = (last - first) / span, first - low * (last - first) / span
    return lambda values: np.asarray(values, float) * slope + start


def _svg(parts: list[str], xlabel: str, ylabel: str, words: str) -> Markup:
    middle = (TOP + BOTTOM) / 2
    labels = (
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(xlabel)}'
        f'</text><text transform="translate(11 {middle})rotate(-90)" text-anchor="middle">'
        f"{escape(ylabel)}</text>"
    )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(words)}">{"".join(parts)}{labels}</svg>'
    )


def _axes(across: list[tuple[float, str]], up: list[tuple[float, str]]) -> str:
    grid = "".join(f"M{LEFT} {y:.1f}H{RIGHT}" for y, _ in up)
    texts = []
    last = -math.inf
    for x, text in across:
        reach = 3.4 * len(text)  # half the width of its digits
        if x - reach > last:
            texts.append(f'<text x="{x:.1f}" y="{BOTTOM + 15}" text-anchor="middle">{text}</text>')
            last = x + reach + 2
    texts += [
        f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{text}</text>' for y, text in up
    ]
    marks = "".join(f"M{x:.1f} {BOTTOM}v4" for x, _ in across)
    frame = f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}{marks}" class="ink"/>'
    return f'<path d="{grid}" class="grid"/>{frame}{"".join(texts)}'


def _line(x: np.ndarray, up: Callable[[Any], np.ndarray], series: Series) -> str:
    y = up(series.values)
    known = np.isfinite(y)
    runs = np.split(np.arange(len(y)), np.flatnonzero(~known))
    path = ""
    for run in runs:
        points = [f"{x[k]:.1f} {y[k]:.1f}" for k in run if known[k]]
        path += f"M{points[0]}L{' '.join(points[1:] or points)}" if points else ""
    marks = _marks(x[known], y[known], series)
    return f'<path d="{path}" {_stroke(series)}/>{marks}'


def _marks(x: Iterable[float], y: Iterable[float], series: Series) -> str:
    if not series.marker:
        return ""
    shape, ink = MARKERS[series.marker], _ink(series.colour)
    path = "".join(f"M{a:.1f} {b:.1f}{shape}" for a, b in zip(x, y, strict=True))
    return f'<path d="{path}" fill="{ink}" stroke="{ink}"/>'


def _band(x: np.ndarray, up: Callable[[Any], np.ndarray], series: Series) -> str:
    assert series.low is not None and series.high is not None
    edges = [(x, up(series.high)), (x[::-1], up(series.low)[::-1])]
    points = [f"{a:.1f} {b:.1f}" for xs, ys in edges for a, b in zip(xs, ys, strict=True)]
    return f'<path d="M{" ".join(points)}z" fill="{_ink(series.colour)}" opacity=".18"/>'


def _filled(path: str, k: int) -> str:
    hatch = (k + k // len(HATCHES)) % len(HATCHES)
    over = f'<path d="{path}" fill="url(#hatch-{hatch})"/>' if hatch else ""
    return f'<path d="{path}" fill="{COLOURS[k % len(COLOURS)]}"/>{over}'


def _stroke(series: Series) -> str:
    dash = f' stroke-dasharray="{series.dash}"' if series.dash else ""
    return f'fill="none" stroke="{_ink(series.colour)}" stroke-width="{series.width}"{dash}'


def _ink(colour: str) -> str:
    """Replace black by the page's ink, which is white in dark mode."""
    return "currentColor" if colour == BLACK else colour
