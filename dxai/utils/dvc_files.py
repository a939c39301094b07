"""DVC's own files, read without DVC: what dvc.lock records, and where a cache keeps an object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

OBJECTS = Path("files/md5")
"""Folder of a cache in which an object's path is its hash."""


def stages(lock: Path) -> dict[str, Any]:
    """What a dvc.lock says of each stage; nothing if there is none."""
    return (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}


def hashes(stages: Mapping[str, Any], kind: str) -> dict[tuple[str, str], str]:
    """Stage and path to hash, that of a folder ending in `.dir`; of its `outs` or `deps`."""
    return {
        (name, entry["path"]): entry.get(entry.get("hash", "md5"), "")
        for name, stage in stages.items()
        for entry in stage.get(kind, [])
    }


def place(cache: Path, digest: str) -> Path:
    """Where a cache keeps what has this hash."""
    return cache / OBJECTS / digest[:2] / digest[2:]
