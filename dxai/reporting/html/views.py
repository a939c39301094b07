"""Tables and claims as the page shows them: with links to what is behind a number, and to files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dxai.reporting.exports import latex, markdown
from dxai.reporting.html.inline import file_uri
from dxai.reporting.html.results import Cell
from dxai.reporting.html.rows import Claim, make_claim
from dxai.reporting.table_layouts import (
    BEST,
    NONE,
    WORST,
    Column,
    Line,
    Row,
    Table,
    against,
    difference,
    ours,
    verdict,
)
from dxai.results.methods import CONTROLS

Anchors = Mapping[tuple[str, str], str]
"""Dataset and classifier to the id of their section."""
SYMBOLS = {"holds": "✓", "does not hold": "✗", "undecided": "○", "unknown": "–"}


@dataclass(frozen=True)
class Entry:
    """One cell of a table: a number, its interval, and where it leads."""

    text: str
    interval: str
    href: str
    kind: str
    best: bool


@dataclass(frozen=True)
class Download:
    """A file that the page carries."""

    label: str
    name: str
    uri: str


@dataclass(frozen=True)
class View:
    """A table as it is shown.

    Attributes
    ----------
    spans : list of (str, int)
        What stands above how many columns; empty if nothing does.
    lines : list of (str, list of Entry)
        Kind of the line, and its cells.
    """

    anchor: str
    title: str
    note: str
    spans: list[tuple[str, int]]
    columns: list[Column]
    lines: list[tuple[str, list[Entry]]]
    downloads: list[Download]


def make_view(table: Table, path: Path, anchors: Anchors) -> View:
    """A table with links and downloads.

    Parameters
    ----------
    path : Path
        The CSV file that it is made of.
    """
    spans = [(g, len(list(of))) for g, of in itertools.groupby(c.group for c in table.columns)]
    return View(
        anchor=table.name,
        title=table.title,
        note=table.note,
        spans=spans if any(group for group, _ in spans) else [],
        columns=table.columns,
        lines=[(line.kind, list(_entries(table, line, anchors))) for line in table.lines],
        downloads=[
            Download("CSV", path.name, file_uri(_csv(path), "text/csv")),
            Download("LaTeX", f"{table.name}.tex", file_uri(latex(table), "application/x-tex")),
            Download("Markdown", f"{table.name}.md", file_uri(markdown(table), "text/markdown")),
        ],
    )


def _entries(table: Table, line: Line, anchors: Anchors) -> Iterable[Entry]:
    """The cells of a line; in a table of the paper every number leads somewhere, else the line."""
    each = table.name.startswith("table")
    for place, (column, text) in enumerate(zip(table.columns, line.cells, strict=True)):
        dataset = column.dataset or line.dataset
        anchor = anchors.get((dataset, column.classifier or line.classifier))
        leads = column.kind == "value" and text != NONE if each else place == 0
        value, bracket, interval = text.partition(" [")
        if column.kind != "value":
            value, bracket, interval = text, "", ""
        yield Entry(
            text=value,
            interval=bracket.strip() + interval,
            href=f"#{anchor}" if leads and anchor else "",
            kind=column.kind,
            best=place in line.best,
        )


def _csv(path: Path) -> str:
    """The file itself; of the table of all images, those that are shown."""
    if path.stem != "per_image":
        return path.read_text(encoding="utf-8")
    whole = pd.read_csv(path, dtype=str, keep_default_na=False)
    shown = whole.groupby(["dataset", "classifier"], sort=False).head(WORST)
    return str(shown.to_csv(index=False))


@dataclass(frozen=True)
class Mark:
    """One claim in the matrix."""

    symbol: str
    words: str
    difference: str
    detail: str
    href: str
    kind: str


@dataclass(frozen=True)
class Matrix:
    """Claims in columns, datasets and classifiers in lines."""

    heads: list[tuple[int, str]]
    lines: list[tuple[str, str, list[list[Mark]]]]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims have which verdict."""
        marks = [mark.words for _, _, cells in self.lines for cell in cells for mark in cell]
        return {words: marks.count(words) for words in SYMBOLS if words in marks}


def make_matrix(cells: list[Cell], anchors: Anchors) -> Matrix:
    """Every claim of the run at a glance."""
    claims = [claim for cell in cells for claim in cell.tables["claims"]]
    found_keys = dict.fromkeys((int(c["table"]), c["claim"]) for c in claims)
    keys = sorted(found_keys, key=lambda key: key[0])
    lines = []
    for cell in cells:
        anchor, found = anchors[cell.dataset, cell.classifier], cell.tables["claims"]
        doubts = _doubts(make_claim(cell))
        marks = [
            [
                _mark(c, anchor, doubts if key == (1, BEST) else "")
                for c in found
                if (c["table"], c["claim"]) == key
            ]
            for key in keys
        ]
        lines.append((cell.name, anchor, marks))
    return Matrix(keys, lines)


def _doubts(claim: Claim | None) -> str:
    """How many guards do not agree with Table 1."""
    if claim is None or not claim.doubts:
        return ""
    return f"; {claim.doubts} of {len(claim.checks)} guards disagree"


def _mark(claim: Row, anchor: str, doubts: str) -> Mark:
    words = verdict(claim)
    other = "its control" if claim["other"] == CONTROLS[-1] else against(claim)
    seeds = "seed" if claim["seeds"] == 1 else "seeds"
    images = f"{claim['images']:.0f} images in {claim['groups']:.0f} groups"
    detail = f"ours {ours(claim)}, {other} {claim['other_value']:.3f}; "
    detail += f"{claim['seeds']:.0f} {seeds}, {images}{doubts}"
    href = f"#{anchor}" if claim["table"] == 1 else f"#table{claim['table']:.0f}"
    return Mark(SYMBOLS[words], words, difference(claim), detail, href, words.replace(" ", "-"))
