"""What has piled up in a project and nobody needs: found with its size, age and reason.

Nothing is found that a process uses, that is younger than asked for, or that a kept run refers to.
`dxai clean` lists it, and removes it if told to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from dxai.paths import EVENTS, LIVE_LOCK, LIVE_STATE, RUN, Paths
from dxai.tracking import deleted_runs, unused_objects
from dxai.utils import processes
from dxai.utils.files import locked, read_json
from dxai.utils.own_folder import own_folder

DAY = 24 * 3600.0
REMOVED = ".removed"
"""Ending of a folder that is being removed."""
GOING_ON = ("", "RUNNING")
"""States of a run that has not ended; if its process is gone, it was killed."""


@dataclass(frozen=True)
class Item:
    """Something to remove: what it is, its bytes if known, its age in days, and why."""

    name: str
    size: int | None
    days: float
    why: str
    remove: Callable[[], object]


@dataclass
class Search:
    """One look at a project, for what is older than `days`; `notes` say what was left out."""

    paths: Paths
    days: float
    notes: list[str] = field(default_factory=list)

    @cached_property
    def used(self) -> dict[Path, int]:
        """Map the folders and files that processes work in or have open to one of the processes."""
        found: dict[Path, int] = {}
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            try:
                opened = [process.cwd(), *(file.path for file in process.open_files())]
            except (psutil.Error, OSError):  # another user's, or it has just ended
                continue
            found |= {Path(name): process.pid for name in opened if name}
        return found

    def user_of(self, folder: Path) -> int | None:
        """Return a process that uses a folder, if any."""
        folder = folder.resolve()
        return next((pid for path, pid in self.used.items() if path.is_relative_to(folder)), None)

    def folder(self, path: Path, why: str) -> Iterator[Item]:
        """Find a folder, unless something in it is too young or in use."""
        size, newest = _measure(path)
        days = (time.time() - newest) / DAY
        if days < self.days and not path.name.endswith(REMOVED):
            return
        if pid := self.user_of(path):
            self.notes.append(f"{self.name(path)} is left: process {pid} uses it")
            return
        yield Item(self.name(path), size, days, why, lambda: _remove(path))

    def name(self, path: Path) -> str:
        root = self.paths.root.resolve()
        return str(path.relative_to(root) if path.is_relative_to(root) else path)


# ------------------------------------------------------------------------------------ the kinds
def workspaces(search: Search) -> Iterator[Item]:
    """Find the folders of runs and of repetitions (`dxai reproduce`) that have ended."""
    for path in _folders(search.paths.runs):
        if pid := _computer(path):
            search.notes.append(f"{search.name(path)} is left: process {pid} computes in it")
            continue
        name = _about(path).get("name")
        named = f"of run {name}" if name else "that names no run"
        yield from search.folder(path, f"workspace {named}, which has ended")
    for path in _folders(search.paths.reproduced):
        yield from search.folder(path, "result of `dxai reproduce`")


def unfinished(search: Search) -> Iterator[Item]:
    """Find trainings, scorings and datasets that were begun and that nothing has gone on with."""
    kinds = {
        search.paths.unfinished: "training",
        search.paths.unfinished_scores: "scoring",
        search.paths.unfinished_data: "dataset",
    }
    for parent, what in kinds.items():
        for path in _folders(parent):
            if (path / EVENTS).exists() and not _is_told(path):
                search.notes.append(
                    f"{search.name(path)} is left: MLflow does not have all of it; "
                    "`python -m dxai.tracking.live` sends the rest"
                )
                continue
            yield from search.folder(path, f"unfinished {what}, not continued since")


def sessions(search: Search) -> Iterator[Item]:
    """Find the logs and sockets of Ray clusters of this user's that have ended."""
    for path in _folders(own_folder() / "ray"):
        if path.name.startswith("session_") and not path.is_symlink():
            yield from search.folder(path, "session of a Ray cluster that has ended")


def cache(search: Search) -> Iterator[Item]:
    """Find the files in DVC's cache that no kept run needs."""
    root = search.paths.root.resolve()
    if _is_busy(root):
        search.notes.append("DVC's cache is left: a run is under way")
        return
    folder = unused_objects.cache_folder(root)
    if not folder.is_relative_to(root):
        search.notes.append(f"DVC's cache is left: {folder} may be that of other projects, too")
        return
    found = unused_objects.find(root, folder, time.time() - search.days * DAY)
    if found:
        oldest = min(path.stat().st_mtime for path in found)
        yield Item(
            f"{len(found)} files in {search.name(folder)}",
            sum(path.stat().st_size for path in found),
            (time.time() - oldest) / DAY,
            "in no dvc.lock of a commit, a workspace or a run in MLflow",
            lambda: unused_objects.remove(found),
        )


def mlflow(search: Search) -> Iterator[Item]:
    """Find runs that were deleted in MLflow, which keeps their files."""
    store = deleted_runs.own_store(search.paths)
    if store is None:
        search.notes.append(
            "MLflow is left: MLFLOW_TRACKING_URI names a store that others may use; "
            "`mlflow gc --older-than 30d` where its database is"
        )
        return
    found = deleted_runs.find(store, time.time() - search.days * DAY)
    if found:
        sizes = [_measure(run.folder)[0] for run in found if run.folder and run.folder.is_dir()]
        yield Item(
            f"{len(found)} runs in MLflow",
            sum(sizes) if sizes else None,
            (time.time() - min(run.deleted for run in found)) / DAY,
            "deleted in MLflow, which keeps them until its gc",
            lambda: deleted_runs.remove(store, found, search.days),
        )


def prefect(search: Search) -> Iterator[Item]:
    """Find the history of runs in this folder's Prefect server, with their logs."""
    if not (search.paths.root / "infra").is_dir():
        return
    answer = _history(search.paths.root, str(search.days))
    if answer is None:
        search.notes.append("Prefect's history is left: no server runs here; `make up` starts it")
    elif answer["runs"]:
        yield Item(
            f"{answer['runs']} runs in Prefect",
            None,
            answer["oldest_days"],
            "ended; their logs and task runs go with them",
            lambda: _history(search.paths.root, str(search.days), "--delete"),
        )


KINDS: dict[str, Callable[[Search], Iterator[Item]]] = {
    "workspaces": workspaces,
    "unfinished": unfinished,
    "cache": cache,
    "mlflow": mlflow,
    "prefect": prefect,
    "ray": sessions,
}


# ------------------------------------------------------------------------------------ helpers
def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir())


def _measure(path: Path) -> tuple[int, float]:
    """Return the bytes below a folder, links not followed, and when it last changed."""
    size, newest = 0, path.lstat().st_mtime
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                about = Path(folder, name).lstat()
            except FileNotFoundError:
                continue
            size += about.st_size
            newest = max(newest, about.st_mtime)
    return size, newest


def _remove(path: Path) -> None:
    """Remove a folder, which nothing sees half removed: it has another name before."""
    if not path.name.endswith(REMOVED):  # by an attempt that was interrupted
        path = path.rename(path.with_name(f".{path.name}.{os.getpid()}{REMOVED}"))
    shutil.rmtree(path)


def _is_locked(file: Path) -> bool:
    if not file.exists():
        return False
    with locked(file) as free:
        return free is None


def _is_busy(root: Path) -> bool:
    """Whether a run, or DVC by hand, computes in a project."""
    locks = root / ".dvc/tmp/rwlock"
    pids = re.findall(r'"pid": (\d+)', locks.read_text()) if locks.exists() else []
    return any(processes.is_running(int(pid)) for pid in pids) or any(
        _computer(path) for path in _folders(Paths(root).runs)
    )


def _computer(workspace: Path) -> int | None:
    """Return the process of a workspace's run, as long as it lives and the run has not ended."""
    about = _about(workspace)
    pid = about.get("pid")
    alive = isinstance(pid, int) and processes.is_running(pid)
    return pid if alive and str(about.get("state", "")).upper() in GOING_ON else None


def _about(workspace: Path) -> dict[str, Any]:
    file = workspace / RUN
    return read_json(file) if file.is_file() else {}


def _is_told(training: Path) -> bool:
    """Whether MLflow has the end of an unfinished training, or was never told of it."""
    if _is_locked(training / LIVE_LOCK):
        return False
    state = read_json(training / LIVE_STATE) if (training / LIVE_STATE).exists() else {}
    return not (state.get("open") or state.get("outcome"))


def _history(root: Path, *arguments: str) -> dict[str, float] | None:
    """Ask this folder's Prefect server for old runs; None if none runs."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.history", *arguments],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"Prefect: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)
