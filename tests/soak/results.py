"""The results of a run as digests, without the seconds that it took."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from dxai.paths import Paths
from dxai.utils.files import read_json

TIMES = ("seconds", "images_per_second", "seconds_per_image")
"""Keys of JSON files, and columns of CSV files."""
SHOWN = ("report.html", "table1.md", "table1.tex")
"""Files that show such numbers to people; where they are made of equal numbers, they are equal."""


def outputs(root: Path) -> list[Path]:
    """Return the folders with all outputs of a project's stages."""
    paths = Paths(root)
    return [paths.prepared, paths.artifacts, paths.results]


def forget(root: Path) -> None:
    """Remove all outputs from a project's folder; DVC's cache has them."""
    for folder in outputs(root):
        shutil.rmtree(folder, ignore_errors=True)


def digests(root: Path) -> dict[str, str]:
    """Map every file below the outputs of a project to a digest of its content."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(_content(path)).hexdigest()[:12]
        for folder in outputs(root)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the names of files that differ, or that only one of the two has."""
    return sorted({name for name, _ in set(found.items()) ^ set(expected.items())})


def _content(path: Path) -> bytes:
    if path.name in SHOWN:
        return b""
    if path.suffix == ".json":
        return json.dumps(_timeless(read_json(path)), sort_keys=True).encode()
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return json.dumps([_timeless(row) for row in csv.DictReader(file)]).encode()
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value
