"""The commands of docs/operating.md, read from the page."""

from __future__ import annotations

import re
from pathlib import Path

MANUAL = Path(__file__).resolve().parents[1] / "docs/operating.md"


def sections() -> dict[str, list[str]]:
    """Return the blocks of commands under each heading."""
    found: dict[str, list[str]] = {}
    for part in MANUAL.read_text().split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        blocks = re.findall(r"(?:^    \S.*\n)+", text, re.MULTILINE)
        if blocks:
            found[heading] = [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]
    return found


def block(heading: str, index: int = 0) -> str:
    """Return one block of commands."""
    return sections()[heading][index]
