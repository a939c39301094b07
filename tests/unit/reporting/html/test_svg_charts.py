"""Charts of the report show their numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from markupsafe import Markup

from dxai.reporting import styles
from dxai.reporting.html import svg_charts
from dxai.reporting.styles import STYLES
from dxai.results.methods import ORDER, label

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b", "砂利"]


def series(
    last: float, name: str = "a", colour: str = "#0072B2", **bounds: list[float]
) -> svg_charts.Series:
    return svg_charts.Series(name, [1.0, (1 + last) / 2, last], colour, **bounds)


def chart(*lines: svg_charts.Series, **options: object) -> Markup:
    return svg_charts.lines([0.0, 0.5, 1.0], lines, "x", "y", "words", (0.0, 1.0), **options)


def points(drawn: str, colour: str) -> np.ndarray:
    """Return the line of a colour as (n, 2) coordinates."""
    for path in ET.fromstring(drawn).iter("path"):
        if path.get("stroke") == colour and path.get("fill") == "none":
            return np.array(re.findall(r"-?\d+\.?\d*", path.get("d", "")), float).reshape(-1, 2)
    raise AssertionError(f"no line is {colour}")


def test_a_line_runs_through_its_numbers() -> None:
    drawn = chart(series(0.5), series(0.75, "b", "#E69F00"))
    first, second = points(drawn, "#0072B2"), points(drawn, "#E69F00")
    # Heights are proportional to values: the first falls by 0.5, the second by half of that.
    assert first[0, 1] == pytest.approx(second[0, 1])
    assert first[2, 1] - first[0, 1] == pytest.approx(2 * (second[2, 1] - second[0, 1]), abs=0.2)
    assert first[2, 1] - first[0, 1] == pytest.approx(
        (svg_charts.BOTTOM - svg_charts.TOP) / 2, abs=0.1
    )
    assert first[:, 0] == pytest.approx(
        [svg_charts.LEFT, (svg_charts.LEFT + svg_charts.RIGHT) / 2, svg_charts.RIGHT]
    )


def test_what_is_not_finite_leaves_a_gap() -> None:
    line = svg_charts.Series("a", [1.0, 0.5, np.nan, 0.5, 1.0], "#0072B2", "o")
    drawn = svg_charts.lines(range(5), [line], "x", "y", "words")
    (path,) = (p for p in ET.fromstring(drawn).iter("path") if p.get("stroke-width") == "1.3")
    assert path.get("d", "").count("M") == 2 and "nan" not in drawn


def test_a_logarithmic_axis_has_a_tick_at_each_value() -> None:
    line = svg_charts.Series("a", [4.0, 3.0, 2.0, 1.0], "#0072B2")
    drawn = svg_charts.lines([1, 100, 10_000, 300_000], [line], "step", "y", "words", log=True)
    x = points(drawn, "#0072B2")[:, 0]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])
    texts = [e.text for e in ET.fromstring(drawn).iter("text")]
    assert texts[:4] == ["1", "100", "10k", "300k"]


def test_an_interval_is_a_band_around_its_line() -> None:
    bounds = {"low": [0.9, 0.6, 0.3], "high": [1.0, 0.8, 0.7]}
    drawn = chart(series(0.5, **bounds))
    (band,) = (p for p in ET.fromstring(drawn).iter("path") if p.get("opacity") == ".18")
    edge = np.array(re.findall(r"\d+\.\d", band.get("d", "")), float).reshape(-1, 2)
    assert len(edge) == 6
    assert np.ptp(edge[:, 1]) == pytest.approx(0.7 * (svg_charts.BOTTOM - svg_charts.TOP), abs=0.2)
    assert ".18" not in chart(series(0.5))


def test_bars_are_as_high_as_their_probabilities() -> None:
    values = np.array([[1.0, 0.0], [0.25, 0.75]])
    drawn = svg_charts.bars(["a", "b"], [0, 1], values, "β", "words")
    heights = [
        [float(bottom) - float(top) for top, bottom in re.findall(r"V([\d.]+)h[\d.]+V(\d+)", d)]
        for d in (p.get("d", "") for p in ET.fromstring(drawn).iter("path"))
        if "z" in d
    ]
    unit = svg_charts.BOTTOM - svg_charts.TOP
    # Each colour, and over the second one its hatching.
    assert [np.round(np.array(h) / unit, 3).tolist() for h in heights] == [
        [1, 0.25],
        [0, 0.75],
        [0, 0.75],
    ]


@pytest.mark.parametrize("further", [0, 9])
def test_every_method_is_named_and_looks_different(
    monkeypatch: pytest.MonkeyPatch, further: int
) -> None:
    """So are new methods, which have no style of their own."""
    methods = [*ORDER, *(f"new-{k}" for k in range(further))]
    monkeypatch.setattr(styles, "ORDER", methods)
    assert set(STYLES) <= set(ORDER)
    assert {styles.style(method).marker for method in methods} <= set(svg_charts.MARKERS)
    lines = [svg_charts.of_method(method, [1.0, 0.5, 0.0]) for method in methods]
    assert len({(s.dash, s.marker) for s in lines}) == len(methods), "never colour alone"
    shown = ["".join(e.itertext()) for e in ET.fromstring(svg_charts.legend(lines)).iter("li")]
    assert shown == [label(method) for method in methods]


@pytest.mark.parametrize("count", [7, 30])
def test_neither_lines_nor_bars_without_a_style_look_the_same(count: int) -> None:
    lines = [svg_charts.nth_series(str(k), k, [0.0], marked=True) for k in range(count)]
    assert len({(s.colour, s.dash, s.marker) for s in lines}) == count
    boxes = re.findall(r"<li>(.*?)</svg>", svg_charts.bar_legend([str(k) for k in range(count)]))
    assert len(set(boxes)) == count


def test_every_hatching_is_defined_once() -> None:
    used = set(re.findall(r"url\(#([\w-]+)\)", svg_charts.bar_legend([str(k) for k in range(50)])))
    defined = re.findall(r'id="([\w-]+)"', svg_charts.hatchings())
    assert used == set(defined) and len(defined) == len(set(defined)) == 6


def test_names_from_data_are_text_and_nothing_else() -> None:
    values = np.full((2, len(HOSTILE)), 0.25)
    parts = [
        svg_charts.bars(HOSTILE, [0, 1], values, HOSTILE[1], HOSTILE[0]),
        svg_charts.bar_legend(HOSTILE),
    ]
    parts += [chart(series(0.5, HOSTILE[0])), svg_charts.legend([series(0.5, HOSTILE[1])])]
    for part in parts:
        tags = {element.tag for element in ET.fromstring(part).iter()}
        assert tags <= {"svg", "path", "text", "ul", "li"}
    assert ET.fromstring(parts[0]).get("aria-label") == HOSTILE[0]
    assert [e.text for e in ET.fromstring(parts[0]).iter("text")][-2] == HOSTILE[1]


def test_ink_is_the_pages() -> None:
    drawn = chart(series(0.5, colour="#1f2328"))
    assert 'stroke="currentColor"' in drawn and "#1f2328" not in drawn


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3.2, 12.7, [0, 5, 10]),
        (0.031, 0.049, [0.035, 0.04, 0.045]),
        (0, 300_000, [0, 100_000, 200_000, 300_000]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert svg_charts.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 1.0, -7.0, 1e-9])
def test_a_single_value_has_ticks_around_it(value: float) -> None:
    found = svg_charts.ticks(value, value)
    assert len(set(found)) > 1 and found[0] <= value <= found[-1]
    assert "nan" not in svg_charts.lines(
        [0, 1], [svg_charts.Series("a", [value] * 2, "#0072B2")], "x", "y", "w"
    )


def test_long_histories_are_thinned_to_means_and_gaps_stay() -> None:
    values = np.arange(3000.0)
    run = 3000 // svg_charts.MOST_POINTS
    assert np.array_equal(
        svg_charts.thinned(values), np.arange(svg_charts.MOST_POINTS) * run + (run - 1) / 2
    )
    values[: 2 * run] = np.nan
    assert np.isnan(svg_charts.thinned(values)[:2]).all()
    short = [3.0, np.nan, 1.0]
    assert np.array_equal(svg_charts.thinned(short), short, equal_nan=True)
