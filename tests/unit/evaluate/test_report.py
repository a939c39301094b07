"""The page says what the result files say, and nothing from them becomes code."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dxai.evaluate.report import Folders, build_report
from dxai.evaluate.report.inline import inline_svg
from dxai.files import read_json, write_json
from dxai.params import Params
from tests.fixtures import AREAS, write_results

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}"]
VOID = {"meta", "img", "br", "link", "input", "hr"}

Run = tuple[Params, Folders]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_results(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return build_report(*run)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_report(*write_results(tmp_path_factory.mktemp("hostile"), HOSTILE, channels=3))


class Outline(HTMLParser):
    """Tags with their attributes, ids and the text of each table row; checks nesting."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, start: str) -> list[str]:
        """The cells of the first row that starts so, blanks joined."""
        rows = ([" ".join(cell.split()) for cell in row] for row in self.rows)
        return next(row for row in rows if row and row[0].startswith(start))

    def values(self, name: str) -> list[str]:
        """Every value of an attribute."""
        return [v for _, attributes in self.tags if (v := attributes.get(name)) is not None]


def changed(run: Run, tmp_path: Path, change: Callable[[pd.DataFrame], Any]) -> Run:
    """The run with another table1.csv; without charts and examples, which take seconds."""
    params, folders = run
    table = pd.read_csv(folders.results / "tables" / "table1.csv")
    change(table)
    tmp_path.joinpath("results").mkdir()
    table.to_csv(tmp_path / "results/tables/table1.csv", index=False)
    (tmp_path / "results/tables/table6.csv").write_bytes(
        (folders.results / "tables" / "table6.csv").read_bytes()
    )
    none = tmp_path / "none"
    return params, Folders(folders.prepared, none, none, none, tmp_path / "results")


def test_it_is_one_well_formed_page(page: str) -> None:
    outline = Outline(page)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in outline.values("href")}
    assert targets <= set(ids)
    assert {"summary", "cell-1-table", "cell-1-curves", "cell-1-panels", "times"} <= targets
    images = [attributes for tag, attributes in outline.tags if tag == "img"]
    assert images and all(image["alt"] for image in images)


def test_same_results_same_page(run: Run, page: str) -> None:
    assert build_report(*run) == page


@pytest.mark.parametrize("which", ["page", "hostile_page"])
def test_nothing_is_fetched_and_nothing_runs(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    outline = Outline(text)
    assert "http:" not in text and "https:" not in text
    assert {tag for tag, _ in outline.tags} & {"script", "link", "iframe", "object"} == set()
    assert all(value.startswith("data:image/png;base64,") for value in outline.values("src"))
    assert all(value.startswith("#") for value in outline.values("href"))
    assert not [name for _, attributes in outline.tags for name in attributes if name[:2] == "on"]
    assert "default-src 'none'" in outline.values("content")[2]


def test_names_from_data_are_shown_as_they_are(hostile_page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile_page
    assert "{{ 7 * 7 }}" in hostile_page
    outline = Outline(hostile_page)
    labels = [label for label in outline.values("aria-label") if HOSTILE[1] in label]
    assert labels, "a chart is described with the name of its class"


def test_table1_shows_the_values_of_the_file(page: str) -> None:
    outline = Outline(page)
    ours = outline.row("DXAI (ours) part, 1,500 steps")
    assert ours[1].startswith("0.840") and "0.810 – 0.865" in ours[1]
    assert ours[3:] == [
        "0.890",
        "0.820",
        "0.880",
        "25.8",
        "14.2",
        "0.213",
        "0.25",
        "0.004",
        "0.54–0.75",
    ]
    assert outline.row("Integrated Gradients signed")[1].startswith("0.990")
    assert outline.row("Integrated Gradients relu")[1].startswith("0.993")
    assert outline.row("LRP")[1] == "unsupported: no rule for <LeakyReLU> & friends"
    assert outline.row("LIME relu, samples 100, segments 30")[1].startswith("failed: RuntimeError")


def test_the_lowest_of_the_claim_is_marked_and_only_that(
    run: Run, page: str, tmp_path: Path
) -> None:
    marked = re.findall(r'<strong class="best">([\d.]+)</strong>', page)
    assert marked == ["0.840", "0.890", "0.820", "0.880"], "naive and shuffled are lower"

    def better_lime(table: pd.DataFrame) -> None:
        table.loc[table["method"] == "random", ["auc", "auc_blur"]] = 0.4

    other = build_report(*changed(run, tmp_path, better_lime))
    marked = re.findall(r'<strong class="best">([\d.]+)</strong>', other)
    assert marked == ["0.890", "0.820", "0.400", "0.400"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.09, -0.02, "below 0: ours is better"),
        (-0.09, 0.02, "It holds 0"),
        (0.01, 0.02, "above 0: ours is worse"),
        (np.nan, np.nan, "no interval, so no claim"),
    ],
)
def test_the_claim_follows_the_interval(
    run: Run, tmp_path: Path, low: float, high: float, words: str
) -> None:
    def set_delta(table: pd.DataFrame) -> None:
        table.loc[table["method"] == "dxai", ["delta_low", "delta_high"]] = low, high

    text = " ".join(build_report(*changed(run, tmp_path, set_delta)).split())
    assert words in text
    assert "<strong>−0.058</strong>" in text
    if not np.isnan(low):
        shown = [f"{v:+.3f}".replace("-", "−") for v in (low, high)]
        assert f"[{shown[0]}, {shown[1]}]" in text


def test_the_means_interval_is_that_of_metrics_json(tmp_path: Path) -> None:
    params, folders = write_results(tmp_path, seeds=(0, 1))
    metrics = read_json(folders.results / "metrics.json")
    metrics["ours_minus_best_baseline"]["textures/resnet18"]["delta_high"] = 0.5
    write_json(folders.results / "metrics.json", metrics)
    text = " ".join(build_report(params, folders).split())
    assert "Ours <strong>0.842</strong> (mean of 2 seeds)" in text
    assert "[−0.090, +0.500]" in text and "It holds 0" in text
    assert "DXAI (ours), seed 1" in text


def test_guards_that_disagree_are_said_so(run: Run, page: str, tmp_path: Path) -> None:
    assert page.count("✓") == 4 and "✗" not in page

    def cheat(table: pd.DataFrame) -> None:
        table.loc[table["method"] == "dxai", "auc_transfer"] = 0.99
        table.loc[table["method"] == "random_phase", "auc"] = 0.5

    text = build_report(*changed(run, tmp_path, cheat))
    assert text.count("✓") == text.count("✗") == 2
    assert text.count(": does not agree") == 2
    assert "but 2 of the 4 guards and controls below do not agree" in " ".join(text.split())
    assert 'class="card claim doubtful"' in text and 'class="card claim better"' in page


def test_a_run_without_our_row_claims_nothing(run: Run, tmp_path: Path) -> None:
    def fail(table: pd.DataFrame) -> None:
        ours = table["method"] == "dxai"
        table.loc[ours, "auc":"seconds_per_image"] = np.nan
        table["reason"] = table["reason"].astype(object)
        table.loc[ours, ["status", "reason"]] = "failed", "a NaN loss"

    text = build_report(*changed(run, tmp_path, fail))
    assert "so nothing is claimed" in text and "failed: a NaN loss" in text


def test_methods_that_all_remove_nothing_are_drawn_too(run: Run, tmp_path: Path) -> None:
    def level(table: pd.DataFrame) -> None:
        table.loc[table["auc"].notna(), ["auc", "auc_low", "auc_high"]] = 1.0

    text = build_report(*changed(run, tmp_path, level))
    assert "on a line<small>0.9 to 1.0</small>" in text


def test_charts_and_examples_are_those_of_the_run(page: str) -> None:
    labels = Outline(page).values("aria-label")
    beta = next(label for label in labels if label.startswith("Accuracy against β"))
    assert "DXAI (ours) 0.59" in beta and "LIME" not in beta
    for title in ("Accuracy against removed energy", "Images of class grass", "Adversarial losses"):
        assert any(label.startswith(title) for label in labels)
    assert any(label.endswith("At the end: class 0.669") for label in labels), "no kld, no neutral"
    # Four pictures of the parts and an overlay, two of each heatmap that worked; three classes.
    assert page.count("<img ") == 3 * (5 + 2 * (len(AREAS) - 3 - 2))
    assert page.count("p 0.97 → 0.60") == 3


def test_the_papers_figures_stand_apart(page: str) -> None:
    measured, _, papers = page.partition('id="paper"')
    assert "Not measured here" in papers and "0.542" in papers
    assert "0.542" not in measured


def test_times_are_listed(page: str) -> None:
    outline = Outline(page)
    assert outline.row("decompose textures/resnet18 0")[1] == "7:41"
    assert outline.row("classifier textures/resnet18 twin")[1] == "0:54"


def test_what_the_stages_did_not_write_is_left_out(tmp_path: Path) -> None:
    params, folders = write_results(tmp_path)
    for path in [*folders.outcomes.rglob("*.*"), *folders.decompositions.rglob("*.csv")]:
        path.unlink()
    outline = Outline(build_report(params, folders))
    assert outline.row("DXAI (ours)")[1].startswith("0.840")
    assert "cell-1-panels" not in outline.values("id")


@pytest.mark.parametrize("name", ["table1.csv", "table6.csv"])
def test_a_missing_table_is_named(run: Run, tmp_path: Path, name: str) -> None:
    params, folders = changed(run, tmp_path, lambda table: None)
    (folders.results / name).unlink()
    with pytest.raises(ValueError, match=name):
        build_report(params, folders)


def test_a_damaged_number_is_named(run: Run, tmp_path: Path) -> None:
    def damage(table: pd.DataFrame) -> None:
        table["auc"] = table["auc"].astype(object)
        table.loc[2, "auc"] = "0,9"

    with pytest.raises(ValueError, match=r"table1\.csv: auc is '0,9'"):
        build_report(*changed(run, tmp_path, damage))


def test_inline_charts_share_no_ids_and_follow_the_theme() -> None:
    from dxai.evaluate import figures

    svg = figures.curves({"dxai": {"level": [0, 1], "accuracy": [1, 0]}}, "x", bands=[])
    one, two = (Outline(inline_svg(svg, 'a "label" <&>', prefix)) for prefix in ("a-", "b-"))
    assert set(one.values("id")) and not set(one.values("id")) & set(two.values("id"))
    used = re.findall(r"(?:url\(|href=\")#([\w-]+)", inline_svg(svg, "", "a-"))
    assert used and set(used) == set(one.values("id"))
    assert one.values("aria-label") == ['a "label" <&>']
    assert "currentColor" in inline_svg(svg, "", "") and "#1f2328" not in inline_svg(svg, "", "")
    assert "#D55E00".lower() in inline_svg(svg, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_real_browser_draws_it(page: str, tmp_path: Path, scheme: str, width: int) -> None:
    from tests.conftest import require_program

    chromium = require_program("chromium")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    # A frame, because a headless window is never as narrow as a phone.
    (tmp_path / "frame.html").write_text(
        f'<body style="margin:0"><iframe src="report.html" style="border:0;width:{width}px;'
        'height:3000px"></iframe>'
    )
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
        "--disable-background-networking --disable-component-update --disable-sync"
    )
    subprocess.run(
        [
            chromium,
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={max(width, 500)},3000",
            f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
            f"--screenshot={tmp_path / 'shot.png'}",
            (tmp_path / "frame.html").as_uri(),
        ],
        check=True,
        timeout=120,
        capture_output=True,
    )
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))[:, :width].astype(int)
    ground = pixels[5, width // 2].mean()
    assert (ground > 200) if scheme == "light" else (ground < 50)
    ours = np.abs(pixels - [0xD5, 0x5E, 0x00]).sum(-1) < 40
    assert ours.sum() > 300, "the chart's line of ours, and its mark in the table"
    # Nothing sticks out: the right edge holds ground only (tables scroll inside their frame).
    assert np.ptp(pixels[:, -3:].mean(-1)) < 60
