"""The documentation, built as `make docs` builds it, in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, chromium

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WIDTHS = (1280, 400)
PAGES = (
    "index",
    "start",
    "guards",
    "settings",
    "api",
    "commands",
    "architecture",
    "training",
    "gallery/index",
    "gallery/plot_2_shortcut",
    "gallery/plot_5_table",
)
"""Pages of every kind."""
TUTORIALS = sorted(path.stem for path in (ROOT / "docs/tutorials").glob("*.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it from a copy of its sources; the tutorials run."""
    folder = tmp_path_factory.mktemp("site")
    for page in ROOT.glob("*.md"):
        shutil.copy(page, folder)
    ignored = shutil.ignore_patterns("_build", "gallery", "__pycache__")
    shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignored)
    (recipe,) = re.findall(
        r"^\t\$\(BIN\)/python -m (sphinx .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    done = subprocess.run(
        [sys.executable, "-m", *recipe.split()],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return folder / "docs/_build/html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def test_every_tutorial_ran(site: Path) -> None:
    assert len(TUTORIALS) == 6
    for name in TUTORIALS:
        page = (site / f"gallery/{name}.html").read_text()
        seconds = re.search(r"Total running time of the script:</strong> \((.*?) seconds\)", page)
        assert seconds and seconds[1] != "0 minutes 0.000", name


LOADED = re.compile(
    r"<(?:script|link|img|iframe|object|embed|source|image|use|video|audio)\b[^>]*?"
    r"\s(?:src|href|data|srcset|xlink:href)=[\"']?(?:https?:)?//[^\s>]*"
    r"|(?:url\(|@import|\bfrom|\bimport|\bfetch\()\s*[(\"']*(?:https?:)?//[^\s)\"']+"
)
"""What a page, style sheet or script asks another machine for, but for links that are clicked."""


def test_no_page_asks_the_network_for_anything(site: Path) -> None:
    wanted = (
        '<script src="https://cdn.example/a.js">, <link href=//b.example/c.css>, url(http://d/e)'
    )
    assert len(LOADED.findall(f'{wanted}, <a href="https://example.org">')) == 3
    found = {
        str(path.relative_to(site)): LOADED.findall(path.read_text())
        for path in site.rglob("*")
        if path.suffix in (".html", ".css", ".js", ".svg")
    }
    assert len(found) > 50 and "architecture.html" in found
    assert {name: addresses for name, addresses in found.items() if addresses} == {}


def test_diagrams_are_pictures_for_both_schemes(site: Path) -> None:
    for name, said in (("architecture", "make benchmark"), ("training", "EventQueue actor")):
        page = (site / f"{name}.html").read_text()
        for scheme in ("light", "dark"):
            shown = f'class="diagram only-{scheme} docutils container">'
            (picture,) = re.findall(rf'{shown}\s*<img alt="[^"]*" src="([^"]+)"', page)
            assert said in re.sub(r"<[^>]*>", "", (site / picture).read_text())


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_the_screen_and_load_nothing(site: Path, browser: Browser, width: int) -> None:
    for name in PAGES:
        browser.open(site / f"{name}.html", width=width)
        assert browser.run("document.documentElement.scrollWidth") <= width, name
        broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
        assert browser.run(broken) == [], name
    assert {address.partition(":")[0] for address in browser.requests} == {"file"}
    assert browser.errors == []


@pytest.mark.parametrize("width", WIDTHS)
def test_what_to_type_is_seen_first(site: Path, browser: Browser, width: int) -> None:
    browser.open(site / "index.html", width=width)
    block = "document.querySelector('article pre')"
    assert "dxai demo" in browser.run(f"{block}.textContent")
    assert browser.run(f"{block}.getBoundingClientRect().bottom") < 900
