"""Charts hold the numbers that they were given, and the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from dxai.evaluate import figures
from dxai.evaluate.names import BASELINES, OURS, OUTSIDE, STYLES, style

SVG = "{http://www.w3.org/2000/svg}"
LEVELS = [0.0, 0.5, 1.0]
HOSTILE = ["_first", "a$x$b", "<script>alert(1)</script>", "砂利", "tab\tand\x07bell", "n" * 200]


def line(last: float) -> dict[str, list[float]]:
    accuracy = [1.0, (1 + last) / 2, last]
    return {
        "level": LEVELS,
        "accuracy": accuracy,
        "low": [a - 0.1 for a in accuracy],
        "high": accuracy,
    }


def charts() -> dict[str, bytes]:
    """One of each kind."""
    return {
        "curves": figures.curves({m: line(0.5) for m in STYLES}, "β", [OURS, "gradcam"]),
        "bars": figures.probability_bars(HOSTILE, LEVELS, np.full((3, 6), 1 / 6)),
        "training": figures.training_curves([1, 2], {"_a": [1, 2], "b": [2, np.nan]}, "step", "y"),
    }


def texts(svg: bytes) -> list[str]:
    return ["".join(e.itertext()) for e in ET.fromstring(svg).iter(SVG + "text")]


def points(svg: bytes, colour: str) -> list[np.ndarray]:
    """The lines of a colour as (n, 2) coordinates."""
    found = []
    for path in ET.fromstring(svg).iter(SVG + "path"):
        if f"stroke: {colour.lower()}" in path.get("style", "") and "fill: none" in path.get(
            "style", ""
        ):
            numbers = re.findall(r"-?\d+\.?\d*", path.get("d", ""))
            found.append(np.array(numbers, dtype=float).reshape(-1, 2))
    return found


@pytest.mark.parametrize("name", ["curves", "bars", "training"])
def test_same_numbers_same_bytes_and_no_date(name: str) -> None:
    first, second = charts()[name], charts()[name]
    assert first == second
    assert b"date" not in first.lower()


def test_a_curve_runs_through_its_numbers() -> None:
    svg = figures.curves({OURS: line(0.5), "gradcam": line(0.75)}, "β")
    ours = max(points(svg, STYLES[OURS].colour), key=len)
    other = max(points(svg, STYLES["gradcam"].colour), key=len)
    # Heights are proportional to accuracy: ours falls by 0.5, the other by half of that.
    assert ours[0, 1] == pytest.approx(other[0, 1])
    fall, less = ours[-1, 1] - ours[0, 1], other[-1, 1] - other[0, 1]
    assert fall == pytest.approx(2 * less) and fall > 0
    assert ours[1, 0] - ours[0, 0] == pytest.approx(ours[2, 0] - ours[1, 0])


def test_only_the_named_methods_have_a_band() -> None:
    lines = {method: line(0.5) for method in STYLES}
    few, more = (
        figures.curves(lines, "β", bands).count(b"opacity: 0.18") for bands in ([], BASELINES)
    )
    assert (few, more) == (0, len(BASELINES))


def test_every_method_is_named_and_looks_different() -> None:
    assert set(STYLES) == {OURS, *BASELINES, *OUTSIDE}
    assert len({(s.colour, s.line, s.marker) for s in STYLES.values()}) == len(STYLES)
    assert len({s.marker for s in STYLES.values()}) == len(STYLES)
    shown = texts(charts()["curves"])
    assert all(s.label in shown for s in STYLES.values())
    assert style("new").label == "new"


def test_bars_are_as_high_as_their_probabilities() -> None:
    svg = figures.probability_bars(["a", "b"], [0, 1], [[1.0, 0.0], [0.25, 0.75]])
    heights = []
    for path in ET.fromstring(svg).iter(SVG + "path"):
        if "clip-path" in path.attrib and "stroke: #ffffff" in path.get("style", ""):
            y = np.array(re.findall(r"-?\d+\.?\d*", path.get("d", "")), float).reshape(-1, 2)[:, 1]
            heights.append(np.ptp(y))
    unit = max(heights)
    assert sorted(np.array(heights) / unit) == pytest.approx([0, 0.25, 0.75, 1], abs=1e-3)


def test_names_from_data_are_text_and_nothing_else() -> None:
    svg = charts()["bars"]
    shown = texts(svg)
    assert {"\u200b_first", "a$x$b", "<script>alert(1)</script>", "砂利"} <= set(shown)
    assert b"<script" not in svg and b"\x07" not in svg
    assert max(map(len, shown)) <= 48


def test_long_histories_are_thinned_to_means_and_gaps_stay() -> None:
    values = np.arange(3000.0)
    assert np.array_equal(figures._thinned(values), np.arange(300) * 10 + 4.5)
    values[:20] = np.nan
    assert np.isnan(figures._thinned(values)[:2]).all()
    short = [3.0, np.nan, 1.0]
    assert np.array_equal(figures._thinned(short), short, equal_nan=True)
    assert len(figures.training_curves(range(10**5), {"a": np.ones(10**5)}, "x", "y")) < 60_000


def explanation(channels: int = 1, classes: int = 3) -> np.ndarray:
    image = np.linspace(-1, 1, 64 * channels).reshape(channels, 8, 8)
    shown = ("input", "class-agnostic", "reconstruction")
    probabilities = {name: [1 / classes] * classes for name in shown}
    names = [f"class {k}" for k in range(classes)]
    png = figures.explanation(
        image, image / 2, image / 2, 0 * image, probabilities, names, "class 0"
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [2, 30])
def test_explanations_are_pictures_and_do_not_change(channels: int, classes: int) -> None:
    pixels = explanation(channels, classes)
    assert pixels.shape[0] > 400 and pixels.shape[1] > 800
    assert pixels.std() > 10
    assert np.array_equal(pixels, explanation(channels, classes))
