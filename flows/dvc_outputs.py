"""Outputs of stages, between DVC's cache, the workspace of a run, and the project's folder."""

import os
import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from dxai.paths import Paths
from dxai.tracking.workspace import settings
from dxai.utils import dvc_files
from dxai.utils.errors import one_line
from dxai.utils.files import read_json, remove, write_json

LINKS = "reflink,hardlink,symlink,copy"
"""How files of the cache come into a workspace, which then takes no space."""
REMOTE, REMOTE_NAME = "DXAI_REMOTE", "dxai"
"""Variable for the address of DVC's remote, where DVC's own settings name none; its name."""
CONNECT_SECONDS = 10
PATIENCE_SECONDS = 60.0
"""How long results wait for a `dvc repro` by hand that uses the project's folder."""


def cache(root: Path | str = ".") -> Path:
    """Return the path of DVC's cache, relative to the working directory if inside it."""
    from dvc.repo import Repo  # takes 0.3 s, too slow for merely loading the flow

    with Repo(str(root)) as repo:
        found = Path(repo.cache.legacy.path)  # of all kinds of objects
    return found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found


def share(root: Path, folder: Path) -> bool:
    """Let the workspace `folder` use the cache of a project; returns whether there is a remote.

    What DVC has seen of files is kept in the workspace, not in a folder that would outlive it; what
    it knows of raw files is passed on (`pass_hashes`).
    """
    from dvc.config import Config
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        known, kept = repo.config, repo.cache.legacy.path
    with Config(str(folder / ".dvc")).edit("local") as config:
        config["cache"] |= {"dir": kept, "type": LINKS}
        config["remote"] |= known["remote"]
        config["core"] |= {k: v for k, v in known["core"].items() if k in ("remote", "no_scm")}
        config["core"]["site_cache_dir"] = str(folder / ".dvc/tmp/site")
        if not (folder / ".git").exists():
            config["core"]["no_scm"] = True
        if "remote" not in config["core"] and (url := os.environ.get(REMOTE)):
            config["remote"][REMOTE_NAME] = {"url": url, "connect_timeout": CONNECT_SECONDS}
            config["core"]["remote"] = REMOTE_NAME
        has_remote = "remote" in config["core"]
    pass_hashes(root, folder)
    return has_remote


def pass_hashes(root: Path, folder: Path, back: bool = False) -> None:
    """Tell a workspace which raw files of a project DVC has hashed, or with `back` the reverse.

    The workspace has the same files by links. DVC knows a file by its path, with inode, date and
    size, and would read all of them again for each run.
    """
    from dvc.repo import Repo

    places = (folder, root) if back else (root, folder)
    sources = [dataset["source"] for dataset in settings(folder)["datasets"].values()]
    moves = [[os.path.normpath(place / source) for place in places] for source in sources]
    with Repo(str(places[0])) as known, Repo(str(places[1])) as other:
        moved = {
            path: after + path.removeprefix(before)
            for path in known.state.hashes
            for before, after in moves
            if Path(path).is_relative_to(before)
        }
        entries = known.state.hashes.get_many(moved)
        other.state.hashes.set_many([(moved[path], entry) for path, entry in entries])


def restore(
    wanted: Collection[str], folder: Path, log: Callable[[str], None], pull: bool = False
) -> set[str]:
    """Bring what has been computed before into a workspace; returns the names of these items.

    `wanted` are items in a runnable order. An item's outputs come from dvc.lock if that is of the
    same settings and inputs, else from the run cache, with `pull` from the remote; `log` is told if
    that does not work. dvc.lock then has these items and no others.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    lock = Paths(folder).dvc_lock
    known, found = dvc_files.stages(lock), dict[str, Any]()
    with Repo(str(folder)) as repo, repo.lock:
        if pull:
            try:
                repo.stage_cache.pull(None)
            except Exception as error:  # a store's library raises many types
                log(f"nothing is pulled from DVC's remote: {one_line(error)}")
                pull = False
        stages = {stage.name: stage for stage in repo.index.stages}
        for name in wanted:
            stage = stages[name]
            try:
                same = not stage.changed_stage() and not stage.changed_deps()
                if same and pull:
                    for objects in stage.get_used_objs().values():
                        repo.cloud.pull(objects)
                if same and stage.outs_cached():
                    stage.checkout()
                    found[name] = known[name]
                else:
                    repo.stage_cache.restore(stage, pull=pull)
                    stage.save(run_cache=False)
                    found[name] = to_single_stage_lockfile(stage)
            except (DvcException, OSError):
                continue  # it is computed, and what is wrong is said then
    dvc_files.write_stages(lock, found)
    return set(found)


def hand_over(folder: Path, project: Path, log: Callable[[str], None]) -> bool:
    """Move the outputs in a workspace to the project's folder, in place of older ones.

    Returns whether that was done: a `dvc repro` by hand there may use older ones, and is then
    waited for in vain.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.rwlock import rwlock

    recorded = dvc_files.hashes(dvc_files.stages(Paths(folder).dvc_lock), "outs")
    outs = [path for _, path in recorded if (folder / path).exists()]
    targets = [str(project / path) for path in outs]
    deadline = time.monotonic() + PATIENCE_SECONDS
    with Repo(str(project)) as repo:
        while True:
            try:
                # DVC's own lock of these paths, for a moment.
                with rwlock(repo.tmp_dir, repo.fs, "dxai", [], targets, False):
                    for path in outs:
                        _replace(folder / path, project / path)
                return True
            except LockError as error:
                if time.monotonic() > deadline:
                    log(f"the results stay in {folder}: {str(error).splitlines()[0]}")
                    return False
            time.sleep(1)


def _replace(source: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    target.parent.mkdir(parents=True, exist_ok=True)
    if old.is_dir():
        shutil.rmtree(old)
    with suppress(FileNotFoundError):
        os.replace(target, old)
    shutil.move(source, target)
    remove(old)


def remember(folder: Path, project: Path) -> None:
    """Add what a workspace's dvc.lock says to what the next run starts from, and hashes of files.

    Two runs that end together may lose an entry, which the run cache has as well.
    """
    pass_hashes(project, folder, back=True)
    before = _known(project)
    kept = before | dvc_files.stages(Paths(folder).dvc_lock)
    if kept != before:
        write_json(Paths(project).runs_known, kept)


def recall(folder: Path) -> None:
    """Give a new workspace the dvc.lock of the runs before, beside what git has of it."""
    lock = Paths(folder).dvc_lock
    dvc_files.write_stages(lock, dvc_files.stages(lock) | _known(folder))


def _known(folder: Path) -> dict[str, Any]:
    path = Paths(folder).runs_known
    return read_json(path) if path.exists() else {}


def push(folder: Path, log: Callable[[str], None]) -> None:
    """Send the outputs of a workspace, and the run cache, to DVC's remote.

    `log` is told if that does not work: the results are here, and the next run sends them.
    """
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        try:
            repo.push(run_cache=True)
        except Exception as error:  # a store's library raises many types
            log(f"not everything is sent to DVC's remote: {one_line(error)}")
