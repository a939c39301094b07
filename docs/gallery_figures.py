"""Figures of tutorials: what a block that ends in `.plot()` draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

DPI = 110


def scrape(block: tuple[str, str, int], variables: dict[str, Any], conf: dict[str, Any]) -> str:
    """Save the figure of the last line of a block, if it plots, and return its reStructuredText.

    Figures of the package are made without pyplot, so the gallery's own scraper does not see them.
    """
    line = block[1].rstrip().rpartition("\n")[2]
    if block[0] != "code" or not line.endswith(".plot()"):
        return ""
    path = Path(next(variables["image_path_iterator"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    eval(line, variables["example_globals"]).savefig(path, dpi=DPI)
    return figure_rst([str(path)], conf["src_dir"])
