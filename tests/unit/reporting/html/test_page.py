"""The page shows the result files' content, none of which becomes code."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dxai.config.schema import Params
from dxai.paths import Paths
from dxai.reporting.html.chart_data import randomisation_charts
from dxai.reporting.html.environment import POLICY, SCRIPT
from dxai.reporting.html.page import OPEN, PICTURES, build_report
from dxai.results.table_specs import SPECS
from dxai.utils.files import read_json
from tests.fixtures import AREAS, STEPS, VARIANTS, write_results

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}"]
VOID = {"meta", "img", "br", "link", "input", "hr"}
MEGABYTE = 1 << 20
PSNR = 10 * np.log10(4 / 0.05**2)
"""That of a reconstruction whose error is noise of this deviation, in dB."""

Run = tuple[Params, Paths]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_results(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return build_report(*run)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_results(tmp_path_factory.mktemp("rich"), rich=True)


@pytest.fixture(scope="module")
def rich_page(rich: Run) -> str:
    return build_report(*rich)


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("hostile")
    params, folders = write_results(root, HOSTILE, channels=3, rich=True)
    path = folders.results / "tables" / "per_image.csv"
    images = pd.read_csv(path)
    images["id"] = "<script>.png"
    images.to_csv(path, index=False)
    return build_report(params, folders)


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
        """Return the cells of the first row with this start, with blanks joined."""
        rows = ([" ".join(cell.split()) for cell in row] for row in self.rows)
        return next(row for row in rows if row and row[0].startswith(start))

    def values(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [v for _, attributes in self.tags if (v := attributes.get(name)) is not None]


def changed(run: Run, tmp_path: Path, **changes: Callable[[pd.DataFrame], Any]) -> Run:
    """Change tables of a run; without charts and examples, which take longer."""
    params, folders = run
    tables = tmp_path / "results" / "tables"
    tables.mkdir(parents=True)
    for name in SPECS:
        table = pd.read_csv(folders.results / "tables" / f"{name}.csv")
        changes.get(name, lambda table: None)(table)
        table.to_csv(tables / f"{name}.csv", index=False)
    (tmp_path / "data").symlink_to(folders.root / "data")
    return params, Paths(tmp_path)


def words(page: str) -> str:
    return " ".join(page.split())


@pytest.mark.parametrize("which", ["page", "rich_page", "hostile_page"])
def test_it_is_one_well_formed_page(which: str, request: pytest.FixtureRequest) -> None:
    outline = Outline(request.getfixturevalue(which))
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in outline.values("href") if value.startswith("#")}
    assert targets <= set(ids)
    assert {"summary", "main", "table1", "cell-1", "cell-1-curves", "times", "reading"} <= targets
    images = [attributes for tag, attributes in outline.tags if tag == "img"]
    assert images and all(image["alt"] for image in images)
    regions = [a for tag, a in outline.tags if a.get("role") == "region"]
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in regions)
    assert len(regions) >= 8, "tables scroll inside their own, reached by keyboard"


def test_same_results_same_page(run: Run, page: str) -> None:
    assert build_report(*run) == page


@pytest.mark.parametrize("which", ["page", "rich_page", "hostile_page"])
def test_nothing_is_fetched_and_nothing_runs(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    outline = Outline(text)
    assert "http:" not in text and "https:" not in text
    assert {tag for tag, _ in outline.tags} & {"link", "iframe", "object"} == set()
    scripts = [attributes.get("type") for tag, attributes in outline.tags if tag == "script"]
    assert set(scripts[:-1]) == {"application/json"} and scripts[-1] is None, "data, then our own"
    assert f"<script>{SCRIPT}</script>" in text
    assert all(re.match(r"data:image/(png|webp);base64,", value) for value in outline.values("src"))
    assert all(re.match(r"#|data:text/|data:application/", v) for v in outline.values("href"))
    assert not [name for _, attributes in outline.tags for name in attributes if name[:2] == "on"]
    assert POLICY in outline.values("content") and POLICY.startswith("default-src 'none';")


def test_names_from_data_are_shown_as_they_are(hostile_page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile_page
    assert "&lt;script&gt;.png" in hostile_page and "<script>.png" not in hostile_page
    assert "{{ 7 * 7 }}" in hostile_page
    outline = Outline(hostile_page)
    labels = [label for label in outline.values("aria-label") if HOSTILE[1] in label]
    assert labels, "a chart is described with the name of its class"


def test_the_page_stays_small(rich_page: str) -> None:
    assert len(rich_page.encode()) * 15 / 6 < 9 * MEGABYTE, "five datasets, three classifiers"


# ------------------------------------------------------------------------------------ claims
@pytest.mark.parametrize(
    ("low", "high", "symbol", "verdict", "sentence"),
    [
        (-0.09, -0.02, "✓", "holds", "below 0: ours is better"),
        (-0.09, 0.02, "○", "undecided", "It holds 0"),
        (0.01, 0.02, "✗", "reversed", "above 0: ours is worse"),
        (np.nan, np.nan, "–", "unknown", "no interval, so no claim"),
    ],
)
def test_a_claim_follows_its_interval(
    run: Run, tmp_path: Path, low: float, high: float, symbol: str, verdict: str, sentence: str
) -> None:
    def set_delta(claims: pd.DataFrame) -> None:
        claims.loc[0, ["delta", "delta_low", "delta_high"]] = -0.058, low, high

    text = words(build_report(*changed(run, tmp_path, claims=set_delta)))
    assert sentence in text and "<strong>−0.058</strong>" in text
    assert f"<b>{symbol} {verdict}</b>" in text
    if not np.isnan(low):
        shown = [f"{v:+.3f}".replace("-", "−") for v in (low, high)]
        assert f"−0.058 [{shown[0]}, {shown[1]}]" in text, "in the matrix"
        assert f"[{shown[0]}, {shown[1]}]" in text


def test_the_matrix_has_every_claim_and_leads_to_its_section(rich: Run, rich_page: str) -> None:
    claims = pd.read_csv(rich[1].results / "tables" / "claims.csv")
    marks = re.findall(r'<a class="mark [\w-]+" href="(#[\w-]+)"><b>(.) ([\w ]+)</b>', rich_page)
    assert len(marks) == len(claims)
    first = rich_page[rich_page.index('<table class="marks">') :]
    found = Outline(first[: first.index("</table>") + 8]).row("textures · resnet18")
    assert len(found) == 1 + len(claims[["table", "claim"]].drop_duplicates())
    assert sum("holds" in cell for cell in found) == 6
    assert {href for href, _, _ in marks} >= {"#table2", "#table3", "#table4", "#cell-1", "#cell-6"}
    held = int(claims["holds"].sum())
    assert f"holds: {held}, undecided: {len(claims) - held}." in words(rich_page)
    assert "2 seeds, 12 images in 6 groups" in words(rich_page)


def test_the_mean_over_seeds_is_the_claims(rich: Run, rich_page: str) -> None:
    claims = pd.read_csv(rich[1].results / "tables" / "claims.csv")
    value, low, high = claims.loc[0, ["ours_value", "ours_low", "ours_high"]]
    shown = f"Ours <strong>{value:.3f}</strong> [{low:.3f}, {high:.3f}] (mean of 2 seeds)"
    assert shown in words(rich_page)
    assert "DXAI (ours), seed 1" in rich_page


def test_guards_that_disagree_are_said_so(run: Run, page: str, tmp_path: Path) -> None:
    card = '<div class="card claim'
    assert page[page.index(card) :].count("✓") == 7, "six, and how to read it"

    def cheat(table: pd.DataFrame) -> None:
        table.loc[table["method"] == "dxai", "auc_transfer"] = 0.99
        table.loc[table["method"] == "random_phase", "auc"] = 0.5

    text = build_report(*changed(run, tmp_path, table1=cheat))
    assert text.count(": does not agree") == 2
    assert "but 2 of the 6 guards and controls below do not agree" in words(text)
    assert "groups; 2 of 6 guards disagree</small>" in text and "guards disagree" not in page
    assert 'class="card claim doubtful"' in text and 'class="card claim holds"' in page


def test_a_run_without_our_row_claims_nothing(run: Run, tmp_path: Path) -> None:
    def fail(table: pd.DataFrame) -> None:
        ours = table["method"] == "dxai"
        table.loc[ours, "auc":"seconds_per_image"] = np.nan
        table["reason"] = table["reason"].astype(object)
        table.loc[ours, ["status", "reason"]] = "failed", "a NaN loss"

    def clear(claims: pd.DataFrame) -> None:
        claims["dataset"] = "another"

    text = build_report(*changed(run, tmp_path, table1=fail, claims=clear))
    assert "so nothing is claimed" in text and "failed: a NaN loss" in text


@pytest.mark.parametrize(
    ("validity", "said"),
    [("brittle", "Brittle: Random has 0.933"), ("at chance", "At chance: Its balanced accuracy")],
)
def test_nothing_is_claimed_of_a_brittle_classifier_or_one_at_chance(
    run: Run, page: str, tmp_path: Path, validity: str, said: str
) -> None:
    def change(table: pd.DataFrame) -> None:
        table["validity"] = validity

    text = build_report(*changed(run, tmp_path, table1=change, claims=change))
    assert "Valid: Random has 0.933" in page and said in text
    assert f'class="card claim {validity}"' in text
    assert f"The classifier is {validity}, so nothing is claimed." in words(text)
    assert f'class="mark {validity}"' in text
    cell = text[text.index("Table 1 with what guards") :]
    assert '<strong class="best">0' not in cell[: cell.index("</table>")]
    assert "DXAI (ours)" in cell and "0.840" in cell, "its numbers are shown"
    assert "✓" not in text[text.index("<main") : text.index('id="reading"')].replace("✓ it", "")


def test_a_network_that_follows_faint_patterns_is_said_to(run: Run, tmp_path: Path) -> None:
    def faint(table: pd.DataFrame) -> None:
        signed = (table["method"] == "ig") & (table["sign"] == "signed")
        table.loc[signed, ["auc", "auc_transfer", "auc_blur"]] = 0.416, 0.79, 0.752

    assert "follows patterns too faint to see" in build_report(
        *changed(run, tmp_path, table1=faint)
    )


# ------------------------------------------------------------------------------------ tables
def test_table1_of_a_cell_shows_the_values_of_the_file(page: str) -> None:
    start = page.index('<section aria-labelledby="cell-1">')
    outline = Outline(page[start : page.index("</section>", start) + 10])
    ours = outline.row("DXAI (ours) part, 1,500 steps")
    assert ours[1].startswith("0.840") and "0.810 – 0.865" in ours[1]
    assert ours[3:7] == ["0.890", "0.820", "0.870", "0.880"]
    assert ours[7:9] == ["0.860", "0.30"]
    assert ours[9:] == ["25.8", "14.2", "0.213", "0.25", "0.004"]
    assert outline.row("Integrated Gradients signed")[1].startswith("0.990")
    assert outline.row("Integrated Gradients relu")[1].startswith("0.993")
    assert outline.row("LRP relu")[1] == "unsupported: no rule for <LeakyReLU> & friends"
    assert outline.row("LIME relu, samples 100, segments 30")[1].startswith("failed: RuntimeError")
    assert outline.row("Grad-CAM relu, layer layer3.1.conv2")


def test_the_lowest_of_the_claim_is_marked_and_only_that(
    run: Run, page: str, tmp_path: Path
) -> None:
    def marked(text: str) -> list[str]:
        cell = text[text.index("Table 1 with what guards") :]
        return re.findall(r'<strong class="best">([\d.]+)</strong>', cell)

    lowest = ["0.840", "0.890", "0.820", "0.870", "0.880", "0.860"]
    assert marked(page) == lowest, "naive and shuffled are lower"

    def better_random(table: pd.DataFrame) -> None:
        table.loc[table["method"] == "random", ["auc", "auc_blur"]] = 0.4

    other = build_report(*changed(run, tmp_path, table1=better_random))
    assert marked(other) == ["0.890", "0.820", "0.870", "0.860", "0.400", "0.400"]


def test_methods_that_all_remove_nothing_are_drawn_too(run: Run, tmp_path: Path) -> None:
    def level(table: pd.DataFrame) -> None:
        table.loc[table["auc"].notna(), ["auc", "auc_low", "auc_high"]] = 1.0

    text = build_report(*changed(run, tmp_path, table1=level))
    assert "on a line<small>0.9 to 1.0</small>" in text


def test_every_number_of_a_table_leads_to_its_curves(rich_page: str) -> None:
    start = rich_page.index('<h2 id="table1">')
    table = rich_page[start : rich_page.index("</table>", start)]
    links = re.findall(r'<a href="(#[\w-]+)">', table)
    assert set(links) == {f"#cell-{k}-curves" for k in range(1, 7)}
    assert len(links) == 16 * 6
    papers = re.findall(r'<td class="paper">(.*?)</td>', table)
    assert papers[0] == "0.649" and not any("<a" in cell for cell in papers)


def test_every_table_can_be_saved_in_three_formats(rich: Run, rich_page: str) -> None:
    links = [a for tag, a in Outline(rich_page).tags if tag == "a" and "download" in a]
    assert len(links) == 3 * (len(SPECS) + 2)
    by_name = {a["download"]: base64.b64decode((a["href"] or "").split(",", 1)[1]) for a in links}
    tables = rich[1].results / "tables"
    for name in set(SPECS) - {"per_image"}:
        assert by_name[f"{name}.csv"] == (tables / f"{name}.csv").read_bytes()
    assert by_name["per_image.csv"].count(b"\n") == 1 + 6 * 6
    assert by_name["table3.tex"].startswith(b"\\begin{table}")
    assert by_name["table4-normalised.md"].startswith(b"### Table 4, normalised")


def test_the_papers_figures_stand_apart(rich_page: str) -> None:
    found = re.findall(r"<td[^>]*>(?:(?!</td>).)*0\.649(?:(?!</td>).)*</td>", rich_page)
    assert found and all('class="paper"' in cell for cell in found)


# ------------------------------------------------------------------------------------ figures
def test_charts_and_examples_are_those_of_the_run(run: Run, page: str) -> None:
    labels = Outline(page).values("aria-label")
    beta = next(label for label in labels if label.startswith("Accuracy against β"))
    assert "DXAI (ours) 0.59" in beta and "LIME" not in beta
    titles = ("Accuracy against removed energy", "Accuracy while pixels are deleted")
    for title in (*titles, "Images of class grass", "Adversarial losses"):
        assert any(label.startswith(title) for label in labels), title
    training = run[1].decomposition("textures", "resnet18", "0")
    last = pd.read_csv(training / "history.csv").iloc[-1]
    assert any(f"At the end: class {last['loss/class']:.3g}" in label for label in labels)
    # The input, also beside the slider; two parts of either kind, each with an overlay; x_hat and
    # its error; two of each heatmap that worked. Three classes.
    examples = page[page.index("<h3>Examples") : page.index("<details", page.index("<h3>Examples"))]
    assert examples.count("<img ") == 3 * (1 + 9 + 2 * (len(AREAS) - 3 - 2))
    assert examples.count("p 0.97 → 0.60") == 3 * 2
    for network in ("classifier", "twin"):
        assert examples.count(f"<div>{network}: brick 0.97, grass 0.01, gravel 0.01</div>") == 1
        after = f"{network}: brick 0.60, grass 0.28, gravel 0.13; neutrality 0.84"
        assert examples.count(f"<div>{after}</div>") == 2, "without either kind of part"
    errors = re.findall(r"<div>PSNR ([\d.]+) dB</div>", examples)
    assert [float(value) for value in errors] == pytest.approx([PSNR] * 3, abs=1)


def test_it_begins_with_pictures_then_the_verdict_in_words_then_tables(
    rich: Run, rich_page: str
) -> None:
    names = "pictures", "verdict", "claims", "table1"
    places = [rich_page.index(f'id="{name}"') for name in names]
    assert places == sorted(places) and rich_page.index("<table") > places[2]
    top = rich_page[places[0] : places[1]]
    cases = [f"cell-{k + 1}" for k in range(PICTURES)]
    assert re.findall(r'<h4><a href="#([\w-]+)">', top) == cases
    assert top.count('<form class="viewer') == PICTURES
    # The neutral and the generated part and that of the best baseline, with stored answers.
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', top)[0])
    assert data["betas"] == pytest.approx(np.linspace(0, 1, 11))
    kinds = [part["kind"] for part in data["parts"]]
    assert kinds == ["neutral", "generated", "Grad-CAM"]
    case = rich[1].outcome("textures", "resnet18")
    for part, name, method in zip(
        data["parts"], ("dxai-0", "dxai-0", "gradcam"), ("neutral", "dxai", "gradcam"), strict=True
    ):
        table = pd.read_parquet(case / name / "outcomes.parquet")
        table = table[(table["method"] == method) & (table["curve"] == "beta")]
        stored = table[table["index"] == 0].sort_values("level")[["p0", "p1", "p2"]]
        shown = np.array(part["answers"])
        assert shown[:, :3] == pytest.approx(stored.to_numpy(float), abs=6e-5)
        with np.load(case / name / "attributions.npz") as file:
            scale = np.abs(file[method][0]).max()
        assert part["scale"] == pytest.approx(scale, rel=1e-3) or method == "gradcam"


@pytest.mark.parametrize(
    ("low", "high", "ours", "says"),
    [
        (-0.09, -0.02, 0.82, "<strong>Ours is better</strong>, and all 6 guards"),
        (-0.09, -0.02, 0.99, "<strong>Ours is better</strong>, but 1 of 6 guards"),
        (-0.09, 0.02, 0.82, "<strong>These images do not decide</strong>"),
        (0.01, 0.02, 0.82, "<strong>Ours is worse.</strong>"),
    ],
)  # fmt: skip
def test_the_verdict_says_in_words_what_the_interval_says(
    run: Run, tmp_path: Path, low: float, high: float, ours: float, says: str
) -> None:
    def set_delta(claims: pd.DataFrame) -> None:
        claims.loc[0, ["delta", "delta_low", "delta_high"]] = (low + high) / 2, low, high

    def set_transfer(table: pd.DataFrame) -> None:
        table.loc[table["method"] == "dxai", "auc_transfer"] = ours

    page = build_report(*changed(run, tmp_path, claims=set_delta, table1=set_transfer))
    verdict = words(page[page.index('id="verdict"') : page.index('id="claims"')])
    assert "ours has an area of 0.867, the best baseline, Grad-CAM, relu, 0.929" in verdict
    assert says in verdict


@pytest.mark.parametrize(
    ("summary", "pictures", "says"),
    [
        # Two images: x twice, two parts and an overlay of naive and of ours.
        ("The naive optimisation beside", 2 * 8, ["(Fig. 11)", "Naive: agnostic", "p 0.97 → 0.02"]),
        ("Uncertainty over z", 3 * 3, ["Deviation over z", "0.080 [", "8 draws"]),
        ("Localisation: does it mark", 0, ["0.800 [", "0.070 ["]),
        ("Each class alone", 0, ["brick", "grass", "gravel"]),
        ("The worst explained images", 6 * 7, ["area 0.7", "Grad-CAM 0.8"]),
        ("Training", 0, ["Classifier: accuracy", "seed 1"]),
    ],
)  # fmt: skip
def test_a_section_shows_what_was_measured(
    rich_page: str, summary: str, pictures: int, says: list[str]
) -> None:
    start = rich_page.index("brats · resnet18</h2>")
    start = rich_page.index(f"<summary>{summary}", start)
    shown = rich_page[start : rich_page.index("</details>", start)]
    assert shown.count("<img ") == pictures
    assert all(text in shown for text in says)


def test_ablations_show_the_same_images_under_each(rich_page: str) -> None:
    start = rich_page.index('<h2 id="ablations">')
    shown = rich_page[start : rich_page.index("</section>", start)]
    assert shown.count("<img ") == 3 * (1 + 3 * (1 + len(VARIANTS)))
    for title in ("As it is", "Two branches", "No zero distinction", "No distinct reconstruction"):
        assert shown.count(f"<h5>{title}</h5>") == 3
    assert "AUC 0.840, PSNR 25.8 dB" in shown


def test_likeness_is_drawn_from_one_on_for_methods_with_every_depth() -> None:
    about = {"dataset": "textures", "classifier": "resnet18", "of_layers": 40}
    ranks = {"dxai": {40: 0.1}, "gradcam": {10: 0.5, 40: 0.25}, "lime": {40: None}}
    ranks["random"] = {10: 1.0, 40: 1.0}
    rows = [
        about | {"method": method, "layers": layers, "rank": rank}
        for method, depths in ranks.items()
        for layers, rank in depths.items()
    ]
    (chart,) = randomisation_charts(rows).charts
    assert "With all of them: Grad-CAM 0.25, Random 1.00" in chart.svg
    assert not randomisation_charts([row for row in rows if row["layers"] == 40]).charts


def test_stability_is_drawn_over_the_steps(rich_page: str) -> None:
    start = rich_page.index('<h2 id="table4">')
    shown = rich_page[start : rich_page.index("</section>", start)]
    labels = Outline(shown[: shown.index("<details")]).values("aria-label")
    assert any(
        "From the first to the last step: brats · resnet18 0.295" in label for label in labels
    )
    assert shown.count("<img ") == 2 * 3 * (1 + len(STEPS))
    assert "<h5>1,500 steps</h5>" in shown


def test_many_sections_keep_their_details_closed(page: str, rich_page: str) -> None:
    def opened(text: str) -> int:
        return text[text.index('id="cell-1"') :].count("<details open>")

    assert OPEN < 6 and opened(page) > 4 and opened(rich_page) == 0


def test_times_are_listed(rich: Run, rich_page: str) -> None:
    outline = Outline(rich_page)
    for stage, folder in (("decompose", "decompositions"), ("classifier", "classifiers")):
        item = "0" if stage == "decompose" else "twin"
        metrics = read_json(
            rich[1].root / f"artifacts/{folder}/textures/resnet18/{item}/metrics.json"
        )
        minutes, seconds = divmod(round(metrics["seconds"]), 60)
        assert outline.row(f"{stage} textures/resnet18 {item}")[1] == f"{minutes}:{seconds:02}"
    assert outline.row("evaluate textures/resnet18 dxai-two_branches")
    start = rich_page.index('id="seconds"')
    assert rich_page[start:].count('<td class="value">0.004</td>') == 6 * 8


# ------------------------------------------------------------------------------------ damage
def test_what_the_stages_did_not_write_is_left_out(tmp_path: Path) -> None:
    params, folders = write_results(tmp_path, rich=True)
    for path in [*folders.outcomes.rglob("*.*"), *folders.decompositions.rglob("*.csv")]:
        if path.is_file():
            path.unlink()
    text = build_report(params, folders)
    outline = Outline(text)
    assert outline.row("DXAI (ours), seed 0 part")[1].startswith("0.840")
    assert "cell-1-curves" not in outline.values("id") and "<img " not in text
    assert "pictures" not in outline.values("id")
    assert {v[1:] for v in outline.values("href") if v[0] == "#"} <= set(outline.values("id"))


def test_empty_tables_are_left_out(page: str) -> None:
    assert "table3" not in Outline(page).values("id"), "this run has one classifier"
    assert "ablations" in Outline(page).values("id")


@pytest.mark.parametrize("name", SPECS)
def test_a_missing_table_is_named(run: Run, tmp_path: Path, name: str) -> None:
    params, folders = changed(run, tmp_path)
    (folders.results / "tables" / f"{name}.csv").unlink()
    with pytest.raises(ValueError, match=name):
        build_report(params, folders)


def test_a_damaged_number_is_named(run: Run, tmp_path: Path) -> None:
    def damage(table: pd.DataFrame) -> None:
        table["auc"] = table["auc"].astype(object)
        table.loc[2, "auc"] = "0,9"

    with pytest.raises(ValueError, match=r"table1\.csv: auc is '0,9'"):
        build_report(*changed(run, tmp_path, table1=damage))
