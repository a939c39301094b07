"""The stages of dvc.yaml in groups, each brought up to date by `dvc repro`."""

import itertools
import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Thread
from typing import Any

import psutil

from dxai.config.params_file import load_params
from dxai.config.settings import ParamsError
from dxai.utils import files, processes

LANES, MOST_LANES = "DXAI_LANES", 4
"""Variable for how many items run at once, and the default's upper limit: each loads PyTorch."""
GRACE = 5.0
"""Seconds that DVC and its stage get to end after Ctrl-C, and again after SIGTERM."""

_END = "\0\n"  # the line after the last one of DVC and its stages
_RUNNING = re.compile(r"^Running stage '([^']+)'")
_NOISE = re.compile(
    r"\s*(To track the changes with git|git add |To enable auto staging|dvc config|Use `dvc|"
    r"Running stage '|$)"
)
"""Lines to drop: DVC's advice after each command, and the start of a stage."""


@dataclass(frozen=True)
class Group:
    """The items of one stage of dvc.yaml, for example `classifier@textures-resnet18-explained`."""

    name: str
    """Part of the items' names before the `@`."""
    targets: tuple[str, ...]
    """Names of the items for `dvc repro`, each after those it depends on."""


Watch = Callable[[str, Iterator[str]], None]
"""Given the name of a stage that starts and the lines it prints, whose end raises `StageFailed` if
the stage failed."""


class StageFailed(RuntimeError):
    """A stage ended with an error; the text has its name and its error line."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"stage {stage} failed: {reason}")
        # The stage rejected its input: retrying cannot help.
        self.by_input = reason.startswith("error:")


def groups(root: Path | str = ".", wanted: Collection[str] | None = None) -> list[Group]:
    """List the groups of dvc.yaml in a runnable order, read from DVC's own graph.

    With `wanted`, names of groups, only those and their dependencies are listed.
    """
    from dvc.repo import Repo  # takes 0.3 s, too slow for merely loading the flow

    def group(target: str) -> str:
        return target.split("@")[0]

    with Repo(str(root)) as repo:
        needs = {
            stage.name: [needed.name for needed in repo.index.graph.successors(stage)]
            for stage in repo.index.stages
        }
    group_needs: dict[str, set[str]] = {}
    for target in needs:  # in the order of dvc.yaml, which decides among valid orders
        needed = {group(other) for other in needs[target]} - {group(target)}
        group_needs.setdefault(group(target), set()).update(needed)
    targets = list(TopologicalSorter(needs).static_order())
    names = list(TopologicalSorter(group_needs).static_order())
    kept = set(names if wanted is None else wanted)
    for name in reversed(names):
        if name in kept:
            kept |= group_needs[name]
    return [Group(n, tuple(t for t in targets if group(t) == n)) for n in names if n in kept]


def cache(root: Path | str = ".") -> Path:
    """Return the path of DVC's cache, relative to the working directory if inside it."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        found = Path(repo.cache.local.path)
    return found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found


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


def lanes(cores: int | None = None) -> int:
    """Return how many items of a stage run at once: DXAI_LANES, or what this machine can train.

    The variable is for a cluster, which can train more than this machine.
    """
    if given := os.environ.get(LANES):
        if not (given.isascii() and given.isdigit() and int(given) > 0):
            raise ParamsError(f"{LANES} is {given!r}; it must be a positive integer")
        return int(given)
    training = load_params().training
    room = (cores or os.cpu_count() or 1) // (training.workers * training.cpus_per_worker)
    return max(1, min(room, MOST_LANES))


def reproduce(
    targets: Iterable[str],
    log: Callable[[str], None],
    root: Path | str = ".",
    environment: dict[str, str] | None = None,
    at_once: int = 1,
    stale: Collection[str] | None = None,
    watch: Watch | None = None,
) -> None:
    """Bring targets up to date with `dvc repro --single-item`, passing on each line it prints.

    A stage's lines go to `watch`, in a separate thread, and all others to `log`; without a `watch`
    all do. `environment` is added to that of this process. `stale` are the out-of-date targets, if
    already known.

    Up to `at_once` targets run together, sharing the threads; the first that fails ends the others,
    which keep what they have finished. Every DVC and its stage form a process group, which has
    always ended when this returns or raises. Raises `StageFailed` if DVC ends with an error.
    """
    targets = list(targets)
    for pid in prune_locks(root):
        log(f"cleared the DVC locks of process {pid}, which has ended")
    stale = out_of_date(targets, root) if stale is None else stale
    for target in targets:
        if target not in stale:
            log(f"Stage '{target}' didn't change, skipping")
    targets = [target for target in targets if target in stale]
    if not targets:
        return

    def log_all(stage: str, lines: Iterator[str]) -> None:
        for line in itertools.chain([f"Running stage '{stage}':"], lines):
            log(line)

    count = min(at_once, len(targets))
    threads = {} if count == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    environment = _environment() | threads | (environment or {})
    started: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(count) as pool:
        try:
            running = []
            for share in (targets[first::count] for first in range(count)):
                started.append(_start(share, root, environment))
                lines = _lines(started[-1], ", ".join(share))
                running.append(pool.submit(_pass_on, lines, log, watch or log_all))
            for finished in wait(running, return_when=FIRST_EXCEPTION).done:
                finished.result()
        finally:
            for process in started:
                processes.end_group(process.pid, grace=GRACE)


def _environment() -> dict[str, str]:
    """Copy the environment of this process, with its Python as the stages' `python`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "true"}


def _start(
    targets: Sequence[str], root: Path | str, environment: dict[str, str]
) -> subprocess.Popen[str]:
    # With a pipe, a stage whose flow was killed ends at its next line, not hours later.
    output, pipe = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *targets],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    process.stdout = os.fdopen(output, errors="replace")

    def end_with_leader() -> None:
        process.wait()
        processes.end_group(process.pid, grace=GRACE)
        # A program outside the group may hold the pipe open for ever.
        with suppress(BrokenPipeError), os.fdopen(pipe, "w") as last:
            last.write(f"\n{_END}")

    # A killed DVC, for example by lack of memory, would leave its stage running and the pipe open.
    Thread(target=end_with_leader, daemon=True).start()
    return process


def _pass_on(lines: Iterator[tuple[str, str]], log: Callable[[str], None], watch: Watch) -> None:
    """Give the lines of each stage to `watch`, and the others to `log`."""
    for stage, own in itertools.groupby(lines, key=lambda line: line[0]):
        texts = (text for _, text in own if not _NOISE.match(text))
        if stage:
            watch(stage, texts)
        else:
            for text in texts:
                log(text)


def _lines(process: subprocess.Popen[str], names: str) -> Iterator[tuple[str, str]]:
    """Yield each line that DVC prints with the running stage's name, "" before the first.

    Raises `StageFailed` after the last line, if DVC ended with an error.
    """
    stage, recent = "", deque[str](maxlen=1000)
    assert process.stdout is not None
    with process.stdout as output:
        for line in map(str.rstrip, itertools.takewhile(lambda line: line != _END, output)):
            if match := _RUNNING.match(line):
                stage = match[1]
                recent.clear()
            elif line:
                recent.append(line)
            yield stage, line
    if code := process.wait():
        raise StageFailed(stage or names, _reason(list(recent), code))


def _reason(lines: list[str], code: int) -> str:
    """Find the error line of a stage, else its last line and DVC's own error."""
    for line in lines:
        if line.startswith("error:"):
            return line
    own = [i for i, line in enumerate(lines) if line.startswith("ERROR:")]
    end = own[0] if own else len(lines)
    failure = lines[end].removeprefix("ERROR:").strip() if own else f"dvc ended with code {code}"
    if failure.endswith("blocked by:"):  # a lock; the next line names its holder
        failure += " ".join(lines[end + 1 : end + 2])
    return f"{lines[end - 1]} ({failure})" if end else failure


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
        except json.JSONDecodeError:  # its writer was killed half-way
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
