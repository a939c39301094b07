"""Tables have their files' numbers, beside the paper's, and can be read from each format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dxai.reporting import text
from dxai.reporting.table_layouts import (
    NONE,
    WORST,
    Heading,
    Line,
    Number,
    Table,
    all_tables,
    difference,
    fixed,
    signed,
)
from dxai.results import paper
from dxai.results.io import Row, read_table, read_tables
from dxai.results.methods import BASELINES, CONTROLS, NAIVE, OURS, label
from dxai.results.table_specs import SPECS
from tests.fixtures import AREAS, STEPS, VARIANTS, write_results

HOSTILE = "a_b & 50% $x$ #1 {y} ~ ^ \\ <b> | `c` *d* [e](http://f)\nnew"
INTERVAL = re.compile(r"-?\d\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rich")
    _, folders = write_results(root, rich=True)
    return folders.results / "tables"


@pytest.fixture(scope="module")
def tables(folder: Path) -> dict[str, Table]:
    found = all_tables(read_tables(folder))
    return {table.name: table for of in found.values() for table in of}


def column(table: Table, name: str, group: str = "", kind: str = "value") -> list[str]:
    (index,) = (
        k for k, c in enumerate(table.columns) if (c.name, c.group, c.kind) == (name, group, kind)
    )
    return [str(line.cells[index]) for line in table.lines]


def line(table: Table, *start: str) -> list[str]:
    (found,) = (x for x in table.lines if tuple(x.cells[: len(start)]) == start)
    return list(map(str, found.cells))


def claim(low: float | None, high: float | None) -> Row:
    return {"delta": -0.5, "delta_low": low, "delta_high": high}


# ------------------------------------------------------------------------------------ numbers
def test_numbers_are_short_and_signed() -> None:
    assert (fixed(0.12345), fixed(None), fixed(np.nan), fixed(12, 0)) == ("0.123", NONE, NONE, "12")
    assert (signed(0.5, 1), signed(-0.5, 1), signed(None)) == ("+0.5", "−0.5", NONE)
    assert str(difference(claim(-0.75, 0.25))) == "−0.500 [−0.750, +0.250]"


@pytest.mark.parametrize("name", SPECS)
def test_a_missing_table_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    for path in folder.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / f"{name}.csv").unlink()
    with pytest.raises(ValueError, match=name):
        read_tables(tmp_path)


# ------------------------------------------------------------------------------------ tables
def test_every_line_has_a_cell_a_column(tables: dict[str, Table]) -> None:
    assert len(tables) == len(SPECS) + 2  # the normalised one, and seconds
    for table in tables.values():
        assert table.lines and table.note.endswith(".")
        assert {len(line.cells) for line in table.lines} == {len(table.columns)}


def test_table1_begins_with_the_joint_classifier_and_the_papers_beside_it(
    tables: dict[str, Table],
) -> None:
    table = tables["table1"]
    heads = [(c.group, c.name, c.kind) for c in table.columns]
    joint = "joint (C = D)"
    assert heads[:4] == [
        ("", "Method", "text"),
        (joint, "brats", "value"),
        (joint, "paper", "paper"),
        (joint, "textures", "value"),
    ]
    assert {group for group, _, _ in heads[4:]} == {"resnet18", "simple"}
    printed = column(table, "paper", joint, "paper")
    methods = [line.cells[0] for line in table.lines]
    for method, value in paper.TABLE1["brats"].items():
        assert printed[methods.index(label(method))] == fixed(value)
    assert printed.count(NONE) == len(methods) - len(paper.TABLE1["brats"])


def test_ours_is_the_mean_over_seeds_that_the_claim_has(
    tables: dict[str, Table], folder: Path
) -> None:
    claims = pd.read_csv(folder / "claims.csv")
    for name in ("table1", "table2"):
        for _, row in claims[
            (claims["table"] == name) & claims["claim"].str.contains("baseline")
        ].iterrows():
            group = "joint (C = D)" if row["classifier"] == "joint" else row["classifier"]
            cell = column(tables[name], row["dataset"], group)[0]
            assert cell == "{:.3f} [{:.3f}, {:.3f}]".format(
                *row[["ours_value", "ours_low", "ours_high"]]
            )


def test_the_other_methods_are_the_rows_of_the_file(tables: dict[str, Table]) -> None:
    table = tables["table1"]
    values = dict(
        zip((x.cells[0] for x in table.lines), column(table, "brats", "simple"), strict=True)
    )
    for method, area in AREAS.items():
        if method in (OURS, "lrp", "lime"):
            continue
        own = area + (0.003 if method in ("internal_influence", "gradcam", "random") else 0)
        assert values[label(method)].startswith(f"{own:.3f} [")
    assert values["LRP"] == "unsupported" and values["LIME"] == "failed"
    assert values["Integrated Gradients, relu"].startswith("0.993 [")
    assert all(INTERVAL.fullmatch(v) for v in values.values() if v[0].isdigit())


def test_only_ours_and_baselines_can_be_the_best(tables: dict[str, Table]) -> None:
    table = tables["table1"]
    best = {line.cells[0]: line.best for line in table.lines if line.best}
    values = {k for k, c in enumerate(table.columns) if c.kind == "value"}
    assert best == {"DXAI (ours)": values}, "naive and shuffled are lower"
    kinds = [line.kind for line in table.lines]
    assert kinds == sorted(kinds, key=["ours", "baseline", "other", "outside"].index)
    outside = {line.cells[0] for line in table.lines if line.kind == "outside"}
    assert outside == {label(m) for m in (NAIVE, *CONTROLS)}
    assert kinds.count("baseline") == len(BASELINES)


def test_signed_grain_is_shown_and_never_the_best(folder: Path, tmp_path: Path) -> None:
    table1 = pd.read_csv(folder / "table1.csv")
    table1.loc[(table1["method"] == "random") & (table1["sign"] == "signed"), "auc"] = 0.1
    table1.to_csv(tmp_path / "table1.csv", index=False)
    found = all_tables(read_tables(folder) | {"table1": read_table(tmp_path / "table1.csv")})
    table = found["table1"][0]
    (line,) = (line for line in table.lines if line.cells[0] == "Random, signed")
    assert [line.cells[0] for line in table.lines if line.best] == ["DXAI (ours)"]
    for column, cell in zip(table.columns, line.cells, strict=True):
        assert str(cell).startswith({"value": "0.100", "paper": "–"}.get(column.kind, "Random"))
    shown = text.format_table(tmp_path / "table1.csv")
    assert "0.840*" in shown and "0.100" in shown and "0.100*" not in shown


@pytest.mark.parametrize(
    ("validity", "said"),
    [
        ("brittle", "Brittle (a row of Random is below evaluate.valid_auc): textures resnet18."),
        ("at chance", "At chance: textures resnet18."),
    ],
)
def test_nothing_is_the_best_or_claimed_of_a_brittle_classifier_or_one_at_chance(
    folder: Path, validity: str, said: str
) -> None:
    rows = read_tables(folder)
    case, other = ("textures", "resnet18"), ("brats", "simple")
    for row in [*rows["table1"], *rows["claims"]]:
        named = row["dataset"], row["classifier"]
        row["validity"] = {case: validity, other: "not known"}.get(named, row["validity"])
    found = {table.name: table for of in all_tables(rows).values() for table in of}
    for name in ("table1", "table2"):
        table = found[name]
        (index,) = (k for k, c in enumerate(table.columns) if (c.dataset, c.classifier) == case)
        assert table.columns[index].name == f"textures ({validity})"
        best = {k for line in table.lines for k in line.best}
        values = {k for k, c in enumerate(table.columns) if c.kind == "value"}
        assert best == values - {index}
        assert said in table.note
        assert "Validity not known (Random was not scored): brats simple." in table.note
        for written in (text.markdown(table), text.latex(table)):
            assert f"textures ({validity})" in written and "nothing is claimed" in written
    first = [x.cells for x in found["claims"].lines if x.cells[0] == "Table 1"]
    ends = {tuple(map(str, cells[1:3])): cells[-2:] for cells in first}
    assert ends[case] == [validity, "no claim"] and ends[other] == ["not known", "holds"]


def test_table3_has_a_square_for_each_dataset(tables: dict[str, Table]) -> None:
    table = tables["table3"]
    assert [line.cells[:2] for line in table.lines if line.dataset == "brats"] == [
        ["brats", "resnet18"],
        ["brats", "simple"],
    ]
    found = line(table, "brats", "simple")
    assert found[2].startswith("1.000 [") and found[3].startswith("0.867 [")
    assert found[4:] == ["0.629", "0.562"]


def test_table4_has_steps_in_columns_and_leaves_out_what_the_paper_lacks(
    tables: dict[str, Table],
) -> None:
    table = tables["table4"]
    assert [c.name for c in table.columns[2:]] == [f"{step:,}" for step in STEPS]
    assert "paper" not in {c.kind for c in table.columns}
    values = [cell.value for cell in table.lines[0].cells[2:] if isinstance(cell, Number)]
    assert values == sorted(values, reverse=True)
    last = tables["table4-normalised"].lines[0].cells[2]
    assert isinstance(last, Number)
    assert last.value == pytest.approx(values[-1] / 2, abs=1e-3)


@pytest.mark.parametrize("dataset", ["celeba", "afhq"])
def test_table4_sets_the_papers_steps_beside_ours(dataset: str, folder: Path) -> None:
    rows = read_tables(folder)
    for row in rows["table4"]:
        row["dataset"] = dataset
        if row["method"] == OURS:
            row["paper"] = paper.TABLE4[dataset][STEPS.index(row["step"])]
    table = next(t for t in all_tables(rows)["table4"] if t.name == "table4")
    printed = [k for k, c in enumerate(table.columns) if c.kind == "paper"]
    assert [str(table.lines[0].cells[k]) for k in printed] == [
        fixed(v) for v in paper.TABLE4[dataset]
    ]


def test_table6_names_the_discriminator_and_leads_to_the_joint_classifier(
    tables: dict[str, Table],
) -> None:
    table = tables["table6"]
    (found,) = (c for c in table.columns if (c.name, c.kind) == ("discriminator", "value"))
    assert found.classifier == "joint"
    assert line(table, "brats")[-3:] == ["0.912", "0.877", "0.982"]
    assert line(table, "textures")[-3:] == [NONE] * 3


def test_further_tables_have_a_line_for_all_that_was_measured(
    tables: dict[str, Table], folder: Path
) -> None:
    variants = column(tables["ablations"], "Variant", kind="text")
    assert variants == ["as it is", *(name.replace("_", " ") for name in VARIANTS)]
    assert len(tables["localisation"].lines) == len(pd.read_csv(folder / "localisation.csv"))
    assert len(tables["claims"].lines) == len(pd.read_csv(folder / "claims.csv"))
    assert len(tables["per-image"].lines) == 6 * WORST
    assert len(tables["per-class"].lines) == 6 * 3
    assert len(tables["seconds"].lines) == 6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("table1", "Seeds of ours: joint 0; resnet18 0, 1; simple 0."),
        ("table1", "Images (independent groups): 12 (6)."),
        ("table1", "Steps of ours: 1,500."),
        ("table3", "Number of seeds: resnet18 2; simple 1."),
        ("table4", "Profile: made-up."),
        ("table6", "Test images: 12."),
    ],
)
def test_the_note_says_what_stands_behind(tables: dict[str, Table], name: str, words: str) -> None:
    assert words in tables[name].note


# ------------------------------------------------------------------------------------ formats
def plain_table() -> Table:
    columns = [Heading(HOSTILE, kind="text"), Heading("v", "group")]
    columns.append(Heading("w", "group", "paper"))
    lines = [Line(["[first", Number(0.1, 0.0, 0.2, digits=1), NONE], "a", best=frozenset([1]))]
    return Table("t", "Title ↓", HOSTILE, columns, [*lines, Line([HOSTILE, "0.5", "1"], "b")])


def test_latex_is_balanced_and_holds_no_bare_special_character() -> None:
    found = text.latex(plain_table())
    bare = re.sub(r"\\[&%$#_{}]", "", found)
    assert bare.count("{") == bare.count("}")
    body = bare[bare.index(r"\toprule") : bare.index(r"\bottomrule")]
    rows = [row for row in body.splitlines() if row.endswith(r"\\")]
    assert [row.count("&") for row in rows] == [1, 2, 2, 2]  # the group spans two columns
    assert not re.search(
        r"[%#_~^<>|]|(?<!-)\$(?=x\$)", re.sub(r"\\label.*|\{%$", "", bare, flags=re.M)
    )
    assert r"\textbf{0.1 {[}0.0, 0.2]}" in found
    assert found.count(r"\midrule") == 2, "one below the head, one between the kinds"
    assert not re.search(r"\\\\\s*[\[*]", found), "it would be an argument of the end of the line"
    assert r"\cmidrule(lr){2-3}" in found


def test_markdown_has_one_line_a_row_and_makes_nothing_of_names() -> None:
    found = text.markdown(plain_table())
    rows = [row for row in found.splitlines() if row.startswith("|")]
    assert len(rows) == 4
    cells = [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows]
    assert cells == [3, 3, 3, 3]
    assert "**0.1 [0.0, 0.2]**" in rows[2]
    assert "](" not in found.replace(r"\](", "") and "<b>" not in found


def test_exports_stand_beside_each_table_and_hold_its_numbers(
    folder: Path, tmp_path: Path, tables: dict[str, Table]
) -> None:
    for path in folder.glob("*.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text.write_exports(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{name}.{suffix}" for name in SPECS for suffix in ("csv", "md", "tex")
    }
    ours = str(tables["table1"].lines[0].cells[1])
    assert f"**{ours}**" in (tmp_path / "table1.md").read_text()
    assert rf"\textbf{{{ours.replace('[', '{[}')}}}" in (tmp_path / "table1.tex").read_text()
    assert "Table 4, normalised" in (tmp_path / "table4.md").read_text()


def test_tables_without_rows_are_written_too(folder: Path, tmp_path: Path) -> None:
    for name in SPECS:
        pd.read_csv(folder / f"{name}.csv").head(0).to_csv(tmp_path / f"{name}.csv", index=False)
    text.write_exports(tmp_path)
    assert (tmp_path / "table1.md").read_text().startswith("### Table 1")


def test_nothing_is_marked_or_claimed_of_a_brittle_classifier(tmp_path: Path) -> None:
    _, folders = write_results(tmp_path)
    said = text.format_table(folders.table("table1"))
    assert "0.840*" in said and "minus the best baseline" in said
    assert "Valid: Random has 0.933" in said
    for name, before, after in (
        ("table1", ",valid\n", ",brittle\n"),
        ("claims", ",valid,", ",brittle,"),
    ):
        path = Path(folders.table(name))
        path.write_text(path.read_text().replace(before, after))
    said = text.format_table(folders.table("table1"))
    assert "0.840 " in said and "0.840*" not in said and "minus the best baseline" not in said
    assert "Brittle: Random has 0.933" in said
    lines = text.format_table(folders.table("claims")).splitlines()[2:]
    assert lines and all(line.split()[-3:] == ["brittle", "no", "claim"] for line in lines)
