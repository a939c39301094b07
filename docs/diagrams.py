"""Mermaid diagrams as pictures, drawn when the site is built: pages load no script for them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import mermaidx
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "_build/diagrams"
THEMES = {"only-light": "default", "only-dark": "dark"}
"""furo's class of a picture that one scheme shows, and how mermaid draws it."""
CONFIG: dict[str, Any] = {
    "fontFamily": "DejaVu Sans, Verdana, sans-serif",  # of the letters that it measures with
    "htmlLabels": False,
    "flowchart": {"htmlLabels": False, "wrappingWidth": 320},
}


class Diagram(SphinxDirective):
    """A fence ```` ```mermaid ````."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        source = "\n".join(self.content)
        return [self._picture(source, shown, theme) for shown, theme in THEMES.items()]

    def _picture(self, source: str, shown: str, theme: str) -> nodes.container:
        key = hashlib.sha1(repr((source, theme, CONFIG)).encode()).hexdigest()[:12]
        path = f"{FOLDER}/{key}.svg"
        file = Path(self.env.srcdir, path)
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(mermaidx.Diagram(source, theme=theme, config=CONFIG).svg())
        image = nodes.image(uri=f"/{path}", alt=source)
        return nodes.container("", image, classes=["diagram", shown])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("mermaid", Diagram)
    return {"parallel_read_safe": True}
