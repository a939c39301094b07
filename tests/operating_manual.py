"""The commands of a page of the documentation, docs/operating.md for one."""

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


def commands(page: Path) -> list[str]:
    """Return the lines of the indented blocks of a page, those that `\\` breaks as one."""
    lines = "".join(re.findall(r"^ {4}.*\n", page.read_text(), re.MULTILINE))
    return [line.strip() for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def block(heading: str, index: int = 0) -> str:
    """Return one block of commands."""
    return sections()[heading][index]
