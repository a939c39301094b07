"""Files in DVC's cache that no kept run needs.

`dvc gc` keeps what git's commits name. But the dvc.lock of a run is not committed, it is in MLflow
and in the run's workspace; and the command would take what has just been written.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dxai.paths import DVC_LOCK, Paths
from dxai.utils import dvc_files

DATA_FILE = ".dvc"
"""Ending of a file that DVC writes for data which no stage makes."""
HASH = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)\b")
"""A hash in either file; one with the marks of a merge conflict is no valid YAML."""


def remove(objects: list[Path]) -> None:
    for path in objects:
        path.unlink(missing_ok=True)


def cache_folder(root: Path) -> Path:
    """Return DVC's cache, which the project may share with others."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{root}: dvc cache dir failed: {done.stderr.strip()}")
    return (root / done.stdout.strip()).resolve()


def find(root: Path, cache: Path, before: float) -> list[Path]:
    """Find the objects written before a time that no run needs which is kept.

    Kept are the runs of every commit of the repository, of every workspace, and every run in
    MLflow that is not deleted there; and what an output is a link to, hard or symbolic.
    """
    kept: set[str] = set()
    for content in contents(root):
        kept |= set(HASH.findall(content))
    for digest in [name for name in kept if name.endswith(".dir")]:
        listing = dvc_files.object_path(cache, digest)
        if listing.is_file():
            kept |= {entry["md5"] for entry in json.loads(listing.read_bytes())}
    linked = _linked(root)
    return [
        path
        for path in sorted((cache / dvc_files.OBJECTS).glob("??/*"))
        if path.parent.name + path.name not in kept
        and path not in linked
        and path.stat().st_nlink == 1
        and path.stat().st_mtime < before
    ]


def _linked(root: Path) -> set[Path]:
    """Return the files that symbolic links in the outputs of a project and its runs point at."""
    found: set[Path] = set()
    for project in (Paths(root), *map(Paths, Paths(root).runs.glob("*"))):
        for outputs in (project.prepared, project.artifacts, project.results):
            for folder, folders, names in os.walk(outputs):
                paths = [Path(folder, name) for name in (*folders, *names)]
                found |= {path.resolve() for path in paths if path.is_symlink()}
    return found


def contents(root: Path) -> Iterator[str]:
    """Read every dvc.lock and .dvc file of a kept run."""
    from dxai.tracking import mlflow_store

    for folder in (root, *Paths(root).runs.glob("*")):
        for path in (folder / DVC_LOCK, *(folder / "data").rglob(f"*{DATA_FILE}")):
            if path.is_file():
                yield path.read_text()
    for path in root.glob(f"*{DATA_FILE}"):
        if path.is_file():
            yield path.read_text()
    yield from _committed(root)
    yield from mlflow_store.logged_texts(root, DVC_LOCK)


def _committed(root: Path) -> Iterator[str]:
    """Read these files as they are in any commit."""
    if not (root / ".git").exists():
        return
    listed = _git(root, "rev-list", "--all", "--objects", "--reflog").decode(errors="replace")
    for line in listed.splitlines():
        blob, _, name = line.partition(" ")
        if Path(name).name == DVC_LOCK or Path(name).suffix == DATA_FILE:
            yield _git(root, "cat-file", "-p", blob).decode(errors="replace")


def _git(root: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    if done.returncode:
        raise ValueError(f"git: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
