"""DVC's own files, read without DVC: the stages of dvc.lock, and the objects of a cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

OBJECTS = Path("files/md5")
"""Folder of a cache with objects named by their hash."""


def stages(lock: Path) -> dict[str, Any]:
    """Read the stages of a dvc.lock; empty if the file does not exist."""
    return (yaml.safe_load(lock.read_text()) or {}).get("stages", {}) if lock.exists() else {}


def hashes(stages: Mapping[str, Any], kind: str) -> dict[tuple[str, str], str]:
    """Map stage and path of its `outs` or `deps` to their hash; a folder's ends in `.dir`."""
    return {
        (name, entry["path"]): entry.get(entry.get("hash", "md5"), "")
        for name, stage in stages.items()
        for entry in stage.get(kind, [])
    }


def object_path(cache: Path, digest: str) -> Path:
    """Return the path in a cache of the object with this hash."""
    return cache / OBJECTS / digest[:2] / digest[2:]
