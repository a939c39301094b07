"""The stages of dvc.yaml in groups, and how DVC, which alone knows what to skip, runs a group."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from threading import Thread
from typing import Any

from dxai.config.schema import ParamsError, load_params
from dxai.utils import files, processes

LANES, MOST_LANES = "DXAI_LANES", 4
"""Variable for how many items run at once, and the most without it: each holds a PyTorch."""
GRACE = 5.0
"""Seconds that DVC and its stage get to end after Ctrl-C, and again after SIGTERM."""

_RUNNING = re.compile(r"^Running stage '([^']+)'")
_HINTS = re.compile(
    r"\s*(To track the changes with git|git add |To enable auto staging|dvc config|Use `dvc)"
)
"""What DVC advises after each command."""


@dataclass(frozen=True)
class Group:
    """The items of one stage of dvc.yaml, for example `classifier@textures-resnet18-explained`.

    Attributes
    ----------
    name : str
        What stands before the `@`.
    targets : tuple of str
        Names of the items, as `dvc repro` takes them, in an order that can be run.
    """

    name: str
    targets: tuple[str, ...]


Watch = Callable[[str, Iterator[str]], None]
"""Takes the name of a stage that begins, and what it prints: to its end, which raises `StageFailed`
if the stage does."""


class StageFailed(RuntimeError):
    """A stage that ended with an error; the text names it and repeats its error line.

    Attributes
    ----------
    by_input : bool
        Whether the stage blamed what it was given (`error: ...`): trying again cannot help.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"stage {stage} failed: {reason}")
        self.by_input = reason.startswith("error:")


def groups(root: Path | str = ".", wanted: Collection[str] | None = None) -> list[Group]:
    """Every group of dvc.yaml in an order that can be run, read from DVC's own graph.

    With `wanted`, names of groups, only those and what they need.
    """
    from dvc.repo import Repo  # 0.3 s: not when the flow is merely loaded

    with Repo(str(root)) as repo:
        needs = {
            stage.name: [needed.name for needed in repo.index.graph.successors(stage)]
            for stage in repo.index.stages
        }
    group_needs: dict[str, set[str]] = {}
    for target in needs:  # in the order of dvc.yaml, which settles what the graph leaves open
        needed = {_group(other) for other in needs[target]} - {_group(target)}
        group_needs.setdefault(_group(target), set()).update(needed)
    if wanted is not None:
        kept = _with_needs(set(wanted) & group_needs.keys(), group_needs)
        group_needs = {name: group_needs[name] for name in group_needs if name in kept}
    targets = list(TopologicalSorter(needs).static_order())
    return [
        Group(name, tuple(target for target in targets if _group(target) == name))
        for name in TopologicalSorter(group_needs).static_order()
    ]


def _with_needs(wanted: set[str], needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    while wanted:
        found |= wanted
        wanted = {needed for name in wanted for needed in needs[name]} - found
    return found


def _group(target: str) -> str:
    return target.split("@")[0]


def cache(root: Path | str = ".") -> Path:
    """The folder of DVC's cache, relative to the working directory where it lies in it."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        found = Path(repo.cache.local.path)
    return found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found


def out_of_date(targets: Iterable[str], root: Path | str = ".") -> set[str]:
    """Those of `targets` that DVC would run.

    Asked all at once, in this process: `dvc repro` takes most of a second for each target that it
    skips.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    wanted = set(targets)
    with Repo(str(root)) as repo:
        try:
            with repo.lock:
                return {s.name for s in repo.index.stages if s.name in wanted and s.changed()}
        except LockError:  # of somebody else's DVC, for which ours will wait
            return wanted


def lanes(cores: int | None = None) -> int:
    """How many items of a stage run at once: what DXAI_LANES says, for a cluster that has more room
    than this machine, or as many as this machine has room to train.

    Each of them gets its share of this machine's threads.

    Raises
    ------
    ParamsError
        If DXAI_LANES is no whole number of 1 or more.
    """
    if given := os.environ.get(LANES):
        if not (given.isascii() and given.isdigit() and int(given) > 0):
            raise ParamsError(f"{LANES} is {given!r}; a whole number of 1 or more is wanted")
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
    """Bring `targets` up to date with `dvc repro --single-item`, passing on each line it prints.

    `stale` are those that are out of date, where that is known already. What a stage prints goes to
    `watch`, in a thread of its own, and the rest to `log`; without a `watch` all of it does.

    `environment` is what the stages find in theirs beside this process's own. Targets that do not
    need each other may run `at_once`, each in its share of the threads; the first that fails ends
    the others, which keep what is finished.

    Every DVC and the stage that it runs are a process group of their own, which is gone when this
    returns or raises, whatever the reason.

    Raises
    ------
    StageFailed
        If DVC ends with an error.
    """
    targets = list(targets)
    for pid in prune_locks(root):
        log(f"cleared the DVC locks of process {pid}, which is no more")
    stale = out_of_date(targets, root) if stale is None else stale
    for target in targets:
        if target not in stale:
            log(f"Stage '{target}' didn't change, skipping")
    targets = [target for target in targets if target in stale]
    if not targets:
        return
    count = min(at_once, len(targets))
    threads = {} if count == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    environment = _environment() | threads | (environment or {})
    begun: list[_Lane] = []
    try:
        for share in (targets[first::count] for first in range(count)):
            begun.append(_Lane(share, log, watch or _telling(log), root, environment))
        while any(lane.is_alive() for lane in begun):
            for lane in begun:
                lane.join(0.1)
                lane.check()
        for lane in begun:
            lane.check()
    finally:
        for lane in begun:
            lane.end()


def _telling(log: Callable[[str], None]) -> Watch:
    def watch(stage: str, lines: Iterator[str]) -> None:
        log(f"Running stage '{stage}':")
        for line in lines:
            log(line)

    return watch


class _Lines:
    """Lines, of which the last can be put `back`."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines, self.back = lines, list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return self.back.pop() if self.back else next(self.lines)


def _is_news(line: str) -> bool:
    return bool(line) and not _HINTS.match(line)


class _Lane(Thread):
    """One `dvc repro`, whose output is told stage by stage."""

    def __init__(
        self,
        targets: Sequence[str],
        log: Callable[[str], None],
        watch: Watch,
        root: Path | str,
        environment: dict[str, str],
    ) -> None:
        super().__init__(daemon=True)
        self.log, self.watch, self.outcome = log, watch, _Outcome(", ".join(targets))
        self.failure: BaseException | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", *targets],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            # A pipe, so that a stage whose flow was killed ends at its next line, not hours later.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        # A DVC that is killed (memory, for example) would leave its stage running, and us reading.
        Thread(target=self._end_with_leader, daemon=True).start()
        self.start()

    def run(self) -> None:
        """Read to the end; what goes wrong is raised by `check`, in the thread that waits."""
        lines = _Lines(map(str.rstrip, self.process.stdout or ()))
        try:
            while (line := next(lines, None)) is not None:
                self.outcome.read(line)
                if stage := _RUNNING.match(line):
                    self.watch(stage[1], self._of_stage(lines))
                elif _is_news(line):
                    self.log(line)
            self._finish()
        except BaseException as error:
            self.failure = error

    def _of_stage(self, lines: _Lines) -> Iterator[str]:
        """What a stage prints; `StageFailed` if it is the last one and DVC ends with an error."""
        for line in lines:
            if _RUNNING.match(line):
                lines.back.append(line)
                return
            self.outcome.read(line)
            if _is_news(line):
                yield line
        self._finish()

    def _finish(self) -> None:
        if self.process.wait() != 0:
            reason = self.outcome.reason(self.process.returncode)
            raise StageFailed(self.outcome.stage, reason)

    def check(self) -> None:
        """Raise what went wrong."""
        if self.failure is not None:
            raise self.failure

    def end(self) -> None:
        """End DVC and its stage, if they still run."""
        processes.end_group(self.process.pid, grace=GRACE, poll=self.process.poll)
        self.join(GRACE)
        if self.process.stdout is not None and not self.is_alive():
            self.process.stdout.close()

    def _end_with_leader(self) -> None:
        self.process.wait()
        processes.end_group(self.process.pid, grace=GRACE)


class _Outcome:
    """What DVC's output says of the stage that runs, and of why it failed."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.blamed = self.last = self.failure = ""

    def read(self, line: str) -> None:
        if match := _RUNNING.match(line):
            self.stage, self.blamed = match[1], ""
        elif line.startswith("error:"):
            self.blamed = self.blamed or line
        elif line.startswith("ERROR:"):  # DVC's own
            self.failure = self.failure or line.removeprefix("ERROR:").strip()
        elif self.failure.endswith("blocked by:"):  # a lock; the next line names its holder
            self.failure += line
        elif line and not self.failure:
            self.last = line

    def reason(self, code: int) -> str:
        """The stage's error line, else its last line and what DVC made of it."""
        if self.blamed:
            return self.blamed
        failure = self.failure or f"dvc ended with code {code}"
        return f"{self.last} ({failure})" if self.last else failure


def _environment() -> dict[str, str]:
    """That of this process, with `python` in a stage's command being this very Python."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "true"}


def prune_locks(root: Path | str = ".") -> list[int]:
    """Drop processes that are no more from DVC's table of locked paths; returns their ids.

    DVC does so itself, but after a kill the first stage with two outputs can still fail as "busy",
    and a process id that the system has since given to another program would block for ever.
    """
    folder = Path(root, ".dvc", "tmp")
    table = folder / "rwlock"
    if not table.exists():
        return []
    from dvc.lock import make_lock

    with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
        try:
            locks = files.read_json(table)
        except json.JSONDecodeError:  # its writer was killed in the middle
            table.unlink()
            return []
        pids = {
            holder["pid"]
            for paths in locks.values()
            for holders in paths.values()
            for holder in _as_list(holders)
        }
        dead = {pid for pid in pids if not _is_dvc(pid)}
        if dead:
            files.write_json(table, _without(locks, dead))
    return sorted(dead)


def _without(locks: dict[str, Any], dead: set[int]) -> dict[str, Any]:
    readers = {
        path: [holder for holder in holders if holder["pid"] not in dead]
        for path, holders in locks.get("read", {}).items()
    }
    writers = {
        path: holder for path, holder in locks.get("write", {}).items() if holder["pid"] not in dead
    }
    return {"read": {path: kept for path, kept in readers.items() if kept}, "write": writers}


def _as_list(holders: Any) -> list[dict[str, Any]]:
    return holders if isinstance(holders, list) else [holders]


def _is_dvc(pid: int) -> bool:
    """Whether the process runs and, where the system tells, is Python (so may be DVC)."""
    try:
        os.kill(pid, 0)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except ProcessLookupError:
        return False
    except OSError:  # another user's process, or a system without /proc
        return True
    return b"dvc" in command or b"python" in command
