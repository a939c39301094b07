"""The data card, read as a browser would."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.datasets.base import Dropped, Listing, Load, Sample, Unit
from dxai.datasets.card import SHOWN, contact_sheet
from dxai.datasets.shard_writer import write_dataset
from tests.listings import noise_listing, target_of

EVIL = "<script>alert('x')</script> & \"co\""


class Page(HTMLParser):
    """The cells of each table by its heading, every address, and every element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self._heading, self._cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag == "h2":
            self._heading = "?"
        elif tag == "tr":
            self.tables.setdefault(self._heading, []).append([])
        elif tag in ("td", "th"):
            self._cell = True
            self.tables[self._heading][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._heading == "?":
            self._heading = data
        elif self._cell:
            self.tables[self._heading][-1][-1] += data.strip()


def read(unit: Unit, load: Load) -> Iterator[Sample | Dropped]:
    """Yield an image of the gray that the unit names, and one that is left out."""
    gray, label = unit.about
    image = np.full((8, 8), gray, np.uint8)
    size = (100 + gray, 50)
    yield Sample(image, unit.split, label, f"{unit.key}/x", unit.key, EVIL, size=size)
    yield Dropped(f"rule {EVIL}", 1, unit.split, label)


@pytest.fixture
def card(tmp_path: Path) -> Page:
    units = [
        Unit(f"{split}/{i}", split, about=(16 * i, label))
        for split, count in (("test", 2), ("validation", 2), ("train", 6))
        for i, label in zip(range(count), ("dark", EVIL) * 3, strict=False)
    ]
    listing = Listing(("dark", EVIL), units, read, {"text": EVIL}, notes=(EVIL,))
    target = replace(target_of(tmp_path, channels=1), paper=(8, 3), origin="here", licence="free")
    write_dataset(target, listing, None)
    return Page((target.out / "card.html").read_text())


def test_counts_after_and_before(card: Page) -> None:
    assert card.tables["Images kept"] == [
        ["class", "train", "validation", "test", "all", "balance"],
        ["dark", "3", "1", "1", "5", "50.0%"],
        [EVIL, "3", "1", "1", "5", "50.0%"],
        ["all", "6", "2", "2", "10", ""],
    ]
    before = {row[0]: row[1:] for row in card.tables["Before the filter"]}
    assert before["train"] == ["6", "6", "0"]
    assert before["test"] == ["2", "2", "0"]


def test_rules_sizes_and_the_paper(card: Page) -> None:
    left_out = card.tables["Left out"]
    assert [f"rule {EVIL}", "train", "dark", "3", "train/0"] in left_out
    assert sum(int(row[3]) for row in left_out[1:]) == 10
    sizes = {row[0]: int(row[1]) for row in card.tables["Sizes of the image files, pixels"]}
    assert sizes["100 x 50"] == 3
    assert sum(sizes.values()) == 10
    assert card.tables["Beside the paper (Table 5)"][1:] == [
        ["here", "8", "2"],
        ["paper", "8", "3"],
    ]


def test_nothing_is_run_or_fetched(card: Page) -> None:
    assert "script" not in card.tags
    assert card.addresses
    assert all(address.startswith("data:image/png") for address in card.addresses)


def test_pictures_are_those_of_the_class(card: Page) -> None:
    """Grays 0, 32, 64 are the first class, 16, 48, 80 the second."""
    for address, grays in zip(card.addresses, ((0, 32, 64), (16, 48, 80)), strict=True):
        data = base64.b64decode(address.partition(",")[2])
        sheet = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        tiles = [sheet[:64, left : left + 64] for left in (0, 66, 132)]
        assert [set(tile.ravel()) for tile in tiles] == [{gray} for gray in grays]


def test_a_histogram_counts_every_pixel(tmp_path: Path) -> None:
    target = target_of(tmp_path)
    listing = noise_listing({"test": 3, "validation": 2, "train": 40})
    write_dataset(target, listing, None)
    text = (target.out / "card.html").read_text()
    bars = [int(n) for n in re.findall(r"<title>\d+-\d+: (\d+)</title>", text)]
    assert len(bars) == 2 * 32
    assert sum(bars) == 45 * 8 * 8 * 3


def test_contact_sheet_is_spread_over_the_split(tmp_path: Path) -> None:
    target = target_of(tmp_path)
    counts = {"test": 2, "validation": 2, "train": 500}
    manifest = write_dataset(target, noise_listing(counts), None)
    sheet = Image.open(io.BytesIO(contact_sheet(target.out, manifest["shards"], 0)))
    assert sheet.size == (8 * 66 - 2, SHOWN // 8 * 66 - 2)
