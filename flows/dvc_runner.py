"""The items of dvc.yaml, each brought up to date by DVC as soon as what it needs is there."""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import psutil

from dxai.config.params_file import load_params
from dxai.config.settings import ParamsError
from dxai.paths import Paths
from dxai.utils import files
from flows import slots
from flows.lanes import Lane

LANES = "DXAI_LANES"
"""Variable for how many items run at once."""
LANE_BYTES = 2 << 30
"""Memory that an item may take, with the worker that trains for it."""
NVIDIA, MOST_ON_GPU = Path("/dev/nvidia0"), 4
"""A file that exists where there is a GPU, and the number of items that share it at most."""
SECONDS = {
    "classifier": 80.0,
    "twin": 80.0,
    "decompose": 200.0,
    "baseline": 50.0,
    "ours": 50.0,
    "leakage": 120.0,
    "randomisation": 120.0,
    "stability": 70.0,
}
"""About how long an item takes in `quick`, by a word of its stage's name; others take `SHORT`. They
decide which of the items that could run comes first."""
SHORT = 5.0
TRAININGS = {"classifier", "twin", "decompose"}
"""Words of the names of stages whose unfinished work has a folder for each choice of settings."""

IN_DVC = Lock()
"""Held by the thread of a lane that asks DVC, whose reader of dvc.yaml fails in two at once."""

Graph = Mapping[str, tuple[str, ...]]
"""The items of dvc.yaml, each with those that it depends on, which come before it."""
Attempt = Callable[[], Iterator[str]]
"""Starts an item and yields its lines, whose end raises `StageFailed` if it failed."""
Run = Callable[[str, Attempt], None]
"""Given an item that may be out of date; brings it up to date by one attempt, or several."""


def group_of(target: str) -> str:
    """Return the stage of dvc.yaml that an item, like `ours@textures-simple-0`, belongs to."""
    return target.split("@")[0]


def graph(root: Path | str = ".", wanted: Collection[str] | None = None) -> Graph:
    """Read the items in a runnable order from DVC's own graph.

    With `wanted`, names of stages, only their items are listed and those that these depend on.
    """
    from dvc.repo import Repo  # takes 0.3 s, too slow for merely loading the flow

    with Repo(str(root)) as repo:
        needs = {
            stage.name: tuple(needed.name for needed in repo.index.graph.successors(stage))
            for stage in repo.index.stages
        }
    order = list(TopologicalSorter(needs).static_order())
    kept = {target for target in order if wanted is None or group_of(target) in wanted}
    for target in reversed(order):
        if target in kept:
            kept.update(needs[target])
    return {target: needs[target] for target in order if target in kept}


def out_of_date(targets: Iterable[str], root: Path | str = ".") -> set[str]:
    """Find the targets that DVC would run.

    They are checked together in this process, because `dvc repro` takes most of a second for each
    skipped target.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    wanted = set(targets)
    with Repo(str(root)) as repo:
        try:
            with repo.lock:
                return {s.name for s in repo.index.stages if s.name in wanted and s.changed()}
        except LockError:  # another DVC holds it; `dvc repro` will wait
            return wanted


def lanes(cores: int | None = None, memory: int | None = None) -> int:
    """Return how many items run at once: DXAI_LANES, or what this machine has room for.

    The variable is for a cluster, which can train more than this machine.
    """
    if given := os.environ.get(LANES):
        if not (given.isascii() and given.isdigit() and int(given) > 0):
            raise ParamsError(f"{LANES} is {given!r}; it must be a positive integer")
        return int(given)
    training = load_params().training
    room = min(
        (cores or os.cpu_count() or 1) // (training.workers * training.cpus_per_worker),
        (memory or psutil.virtual_memory().available) // LANE_BYTES,
        MOST_ON_GPU if NVIDIA.exists() else sys.maxsize,
    )
    return max(1, room)


def reproduce(
    needs: Graph,
    log: Callable[[str], None],
    root: Path | str = ".",
    environment: dict[str, str] | None = None,
    at_once: int = 1,
    stale: Collection[str] | None = None,
    run: Run | None = None,
    name: str = "",
) -> None:
    """Bring the items of a graph up to date with `dvc repro --single-item`.

    An item starts as soon as what it needs is up to date and one of `at_once` lanes is free, those
    first that begin the longest path; they share the threads of this machine. `run` is called for
    each in a thread of its own; without it, the lines of all go to `log`. `environment` is added to
    that of this process. `stale` are the out-of-date items, if already known; DVC looks at these
    and at those that depend on them.

    Other runs of the project, which share its .work, have their turns: no two make the same item at
    the same time, and all together use each core once. `name` is what they call this one.

    The first item that fails ends the others, which keep what they have finished. Every DVC and its
    stage have always ended when this returns or raises. Raises what `run` raises, `StageFailed` if
    DVC ends with an error.
    """
    for pid in prune_locks(root):
        log(f"cleared the DVC locks of process {pid}, which has ended")
    stale = out_of_date(needs, root) if stale is None else stale
    todo = set[str]()
    for target, needed in needs.items():
        if target in stale or not todo.isdisjoint(needed):
            todo.add(target)
        else:
            log(f"Stage '{target}' didn't change, skipping")

    def log_all(target: str, attempt: Attempt) -> None:
        for line in attempt():
            log(line)

    count = max(1, min(at_once, len(todo)))
    total = max(os.cpu_count() or 1, at_once)
    threads = {} if count == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    shared = Paths(Path(root))
    every = [Lane(root, _environment() | threads | (environment or {})) for _ in range(count)]
    free = SimpleQueue[Lane]()
    for lane in every:
        free.put(lane)

    def in_a_lane(target: str) -> None:
        lane = free.get()
        try:
            with (
                slots.turn(shared.turns / turn_of(target, root), name, log, lambda: lane.ended),
                slots.cores(shared.slots, total // count, total, name, log, lambda: lane.ended),
            ):
                (run or log_all)(target, lambda: lane.run(target))
        finally:
            free.put(lane)

    waiting = {target: todo.intersection(needs[target]) for target in needs if target in todo}
    try:
        with ThreadPoolExecutor(count) as pool:
            try:
                _in_order(waiting, count, lambda target: pool.submit(in_a_lane, target))
            finally:
                # At once, since Prefect kills the flow half a minute after it asked it to end.
                with ThreadPoolExecutor(count) as ends:
                    list(ends.map(Lane.end, every))
    finally:
        for lane in every:
            lane.close()


def turn_of(target: str, root: Path | str = ".") -> str:
    """Return the name by which the runs of a project take turns with an item.

    Trainings take hours, and those with other settings or inputs have files of their own; so only
    the same training has to wait. Others wait for any item of their name.
    """
    if TRAININGS.isdisjoint(group_of(target).split("_")):
        return target.replace("/", "-")
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.serialize import to_single_stage_lockfile

    with IN_DVC, Repo(str(root)) as repo:
        (stage,) = repo.stage.collect(target)
        try:
            stage.save_deps()
        except DvcException:  # an input is missing, which DVC will say
            return target
        made_of = {k: v for k, v in to_single_stage_lockfile(stage).items() if k != "outs"}
        return f"{target}-{files.digest(made_of)}"


def _in_order(
    waiting: dict[str, set[str]], count: int, start: Callable[[str], Future[None]]
) -> None:
    """Start each item once those that it waits for are done, the longest path first.

    `count` run at once. Raises what the first that fails raises, at once.
    """
    path = paths(waiting)
    running: dict[Future[None], str] = {}
    while waiting or running:
        ready = sorted((t for t in waiting if not waiting[t]), key=lambda t: -path[t])
        for target in ready[: count - len(running)]:
            del waiting[target]
            running[start(target)] = target
        for finished in wait(running, return_when=FIRST_COMPLETED).done:
            done = running.pop(finished)
            finished.result()
            for others in waiting.values():
                others.discard(done)


def paths(needs: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Return the seconds from the start of each item to the end of the last that waits for it."""
    found = dict.fromkeys(needs, 0.0)
    for target in reversed(list(needs)):
        words = group_of(target).split("_")
        found[target] += next((SECONDS[word] for word in words if word in SECONDS), SHORT)
        for needed in needs[target]:
            found[needed] = max(found[needed], found[target])
    return found


def _environment() -> dict[str, str]:
    """Copy the environment of this process, with its Python as the stages' `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "true"}


def prune_locks(root: Path | str = ".") -> list[int]:
    """Drop ended processes from DVC's table of locked paths; returns their ids.

    DVC does so too, but after a kill the first stage with two outputs can still fail as "busy", and
    a process id that was reused by another program would block for ever.
    """
    folder = Path(root, ".dvc", "tmp")
    table = folder / "rwlock"
    if not table.exists():
        return []
    from dvc.lock import make_lock

    ended: set[int] = set()

    def holds(holder: dict[str, Any]) -> bool:
        if not _may_be_dvc(holder["pid"]):
            ended.add(holder["pid"])
        return holder["pid"] not in ended

    with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
        try:
            locks = files.read_json(table)
        except ValueError:  # its writer was killed half-way
            table.unlink()
            return []
        readers = {path: [*filter(holds, found)] for path, found in locks.get("read", {}).items()}
        writers = {path: found for path, found in locks.get("write", {}).items() if holds(found)}
        if ended:
            read = {path: kept for path, kept in readers.items() if kept}
            files.write_json(table, {"read": read, "write": writers})
    return sorted(ended)


def _may_be_dvc(pid: int) -> bool:
    """Whether a process runs and may be DVC or another Python program."""
    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False
    return "dvc" in command or "python" in command
