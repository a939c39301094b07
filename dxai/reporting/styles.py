"""Colours, markers and lines that tell methods apart, also for colour-blind readers."""

from __future__ import annotations

from dataclasses import dataclass

from dxai.results.methods import ORDER

BLACK, ORANGE, SKY, GREEN = "#1f2328", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GRAY = "#0072B2", "#D55E00", "#CC79A7", "#7f868d"
"""The palette of Okabe and Ito, and a gray for controls."""
GRID = "#dfe1e3"
"""Lines behind bars."""
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, GRAY)
"""Colours of successive series without a style of their own."""


@dataclass(frozen=True)
class Style:
    """Colour, marker and line of one method's curve."""

    colour: str
    marker: str
    line: str


STYLES = {
    "dxai": Style(VERMILLION, "o", "-"),
    "lrp": Style(BLUE, "s", "-"),
    "ig": Style(SKY, "^", "-"),
    "gradient_shap": Style(SKY, "v", "--"),
    "internal_influence": Style(GREEN, "D", "-"),
    "guided_gradcam": Style(PURPLE, "P", "-"),
    "gradcam": Style(PURPLE, "X", "--"),
    "lime": Style(ORANGE, "*", "-"),
    "random": Style(BLACK, "x", "--"),
    "naive": Style(GRAY, "<", ":"),
    "shuffled": Style(GRAY, ">", ":"),
    "random_phase": Style(GRAY, "+", "-."),
}
NEXT_LINE = {"-": "--", "--": "-.", "-.": ":", ":": "-"}


def style(method: str) -> Style:
    """Return the style of a method; one without its own gets a known marker on another line."""
    if method in STYLES or method not in ORDER:
        return STYLES.get(method, Style(GRAY, ".", "--"))
    k = ORDER.index(method)
    known = list(STYLES.values())[k % len(STYLES)]
    return Style(COLOURS[k % len(COLOURS)], known.marker, NEXT_LINE[known.line])
