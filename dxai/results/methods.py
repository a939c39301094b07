"""What methods are called in tables and figures, how they are drawn, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass

from dxai.config.schema import METHODS

OURS = "dxai"
NAIVE = "naive"
BASELINES = tuple(method for method in METHODS if method != NAIVE)
"""What ours is compared with."""
CONTROLS = ("shuffled", "random_phase")
OUTSIDE = (NAIVE, *CONTROLS)
"""Shown, and no part of the claim: the naive optimisation and the two controls."""
ORDER = (OURS, *BASELINES, *OUTSIDE)
"""The rows of Table 1 in the order of the paper's, what is outside the claim last."""

BLACK, ORANGE, SKY, GREEN = "#1f2328", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GRAY = "#0072B2", "#D55E00", "#CC79A7", "#7f868d"
"""Colours that the colour-blind tell apart (Okabe and Ito), and a gray for controls."""
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, GRAY)
"""Of the first, second .. of several things that have no style of their own."""


@dataclass(frozen=True)
class Style:
    """How one method is shown: full name, colour, marker and line of its curve."""

    label: str
    colour: str
    marker: str
    line: str


STYLES = {
    "dxai": Style("DXAI (ours)", VERMILLION, "o", "-"),
    "lrp": Style("LRP", BLUE, "s", "-"),
    "ig": Style("Integrated Gradients", SKY, "^", "-"),
    "gradient_shap": Style("Gradient SHAP", SKY, "v", "--"),
    "internal_influence": Style("Internal Influence", GREEN, "D", "-"),
    "guided_gradcam": Style("Guided Grad-CAM", PURPLE, "P", "-"),
    "gradcam": Style("Grad-CAM", PURPLE, "X", "--"),
    "lime": Style("LIME", ORANGE, "*", "-"),
    "random": Style("Random", BLACK, "x", "--"),
    "naive": Style("Naive optimisation", GRAY, "<", ":"),
    "shuffled": Style("Control: shuffled pixels", GRAY, ">", ":"),
    "random_phase": Style("Control: random phases", GRAY, "+", "-."),
}


def style(method: str) -> Style:
    """The style of a method; one that is not known here is gray and goes by its own name."""
    return STYLES.get(method, Style(method, GRAY, ".", "--"))
