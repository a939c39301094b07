"""Jinja's environment for pages that work from a single file: no request, one script of our own."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2

HERE = Path(__file__).parent
SCRIPT = (HERE / "viewer.js").read_text(encoding="utf-8")
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; script-src 'sha256-"
    + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    + "'"
)
"""What a browser lets a page do: show its own pictures and run `SCRIPT`, and nothing from data."""


def environment() -> jinja2.Environment:
    """Return the environment of this folder's templates; everything from data is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["uri"] = picture_uri
    made.globals |= {"script": SCRIPT, "policy": POLICY}
    return made


def picture_uri(image: bytes) -> str:
    """Encode a PNG or WebP as a data URI."""
    kind = "png" if image.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()
