"""DVC's own files without DVC: the stages of dvc.lock, and the objects of a cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dxai.utils.files import atomic

# LibYAML's take a tenth of the time, where it was there when PyYAML was built.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
OBJECTS = Path("files/md5")
"""Folder of a cache with objects named by their hash."""


def stages(lock: Path) -> dict[str, Any]:
    """Read the stages of a dvc.lock; empty if the file does not exist."""
    if not lock.exists():
        return {}
    return (yaml.load(lock.read_text(), LOADER) or {}).get("stages", {})


def write_stages(lock: Path, stages: Mapping[str, Any]) -> None:
    """Write a dvc.lock."""
    plain = json.loads(json.dumps({"schema": "2.0", "stages": stages}))
    with atomic(lock) as temporary:
        temporary.write_text(yaml.dump(plain, Dumper=DUMPER, sort_keys=False))


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
