"""Measure what Prefect and DVC cost beside the work of a run, in processor time.

Run as `python -m benchmarks.orchestration`. The flow runs twice in a fresh clone of the last
commit: with everything to compute, and with nothing to do. Where all cores are busy, processor time
that is not the work's delays it. The start of the services is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from dxai.config.profiles import select_profile
from dxai.paths import Paths

PORTS = {"DXAI_PREFECT_PORT": "4261", "DXAI_MLFLOW_PORT": "5061"}
"""Also the mark of the run's processes, which inherit it."""
WORK, STAGES = "stages, Ray, live numbers", "dxai.stages."
PARTS = {
    STAGES: WORK,
    "dvc_lane.py": "DVC in its lanes",
    "prefect server": "Prefect's server",
    "prefect worker": "Prefect's worker",
    "infra.worker": "Prefect's worker",
    "prefect.engine": "the flow",
    "infra.local": "the launcher",
}
"""Words of a command line to its part; the first that fits counts, and all others are work."""
SECONDS = 0.5
"""Between two samples. What a process does between its last one and its end is not counted."""
LOGGED = re.compile(r"\d\d:\d\d:\d\d \| ")
"""Start of a line of the flow's log, which the launcher's own lines do not have."""
Process = tuple[int, float]
"""Number and start of a process."""


def main() -> None:
    """Run the flow twice, and print what took how much processor time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="the settings (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as temporary:
        folder = clone(Path(temporary, "flow"), options.profile)
        first, again = Account(), Account()
        run(folder, first)
        run(folder, again)
    work = first.spent[WORK]
    print(f"profile {options.profile}: {first.seconds:.1f} s, nothing to do {again.seconds:.1f} s")
    print(f"no stage ran for {first.idle:.1f} s")
    print(f"{WORK:<28} {work:8.1f} processor seconds")
    rest = first.spent - Counter({WORK: work})
    for part, seconds in rest.most_common():
        print(f"{part:<28} {seconds:8.1f} s, {100 * seconds / work:4.1f}% of the work")
    print(f"{'together':<28} {rest.total():8.1f} s, {100 * rest.total() / work:4.1f}%")


def clone(folder: Path, profile: str) -> Path:
    """Clone the last commit into a folder, and select a profile there."""
    subprocess.run(["git", "clone", "--quiet", Path.cwd(), folder], check=True)
    select_profile(Paths(folder).params, profile)
    return folder


class Account:
    """Adds up the processor time of a run's processes by what they are for.

    Attributes
    ----------
    seconds, idle : float
        How long the run took, and how long no stage ran in it.
    spent : Counter
        Part to processor seconds.
    """

    def __init__(self) -> None:
        self.seconds = self.idle = 0.0
        self.spent: Counter[str] = Counter()
        self._parts: dict[Process, str | None] = {}
        self._used: dict[Process, float] = {}
        self._at_start: dict[Process, float] | None = None
        self._at_end: dict[Process, float] = {}
        self._stages: list[tuple[float, bool]] = []
        self._began = self._ended = 0.0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Sample the processes of the run during the block."""
        over = threading.Event()

        def sample() -> None:
            while not over.wait(SECONDS):
                self._sample()

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def begin(self) -> None:
        """Leave out what was used up to now."""
        self._began, self._at_start = time.monotonic(), dict(self._used)

    def proceed(self) -> None:
        """Note that the run has logged something, maybe its last line."""
        self._ended, self._at_end = time.monotonic(), dict(self._used)

    def close(self) -> None:
        """Add up."""
        assert self._at_start is not None, "no flow has begun"
        self.seconds = self._ended - self._began
        during = [ran for when, ran in self._stages if self._began <= when <= self._ended]
        self.idle = self.seconds * during.count(False) / max(1, len(during))
        for process, used in self._at_end.items():
            part = self._parts[process]
            assert part is not None
            self.spent[part] += used - self._at_start.get(process, 0.0)

    def _sample(self) -> None:
        ran = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has just ended
                key = process.pid, process.create_time()
                if key not in self._parts:
                    self._parts[key] = WORK if self._is_of_run(process) else None
                if self._parts[key] is None:
                    continue
                # A child has the command line of its parent until its own program starts.
                if command := " ".join(process.cmdline()):
                    self._parts[key] = part_of(command)
                times = process.cpu_times()
                self._used[key] = times.user + times.system
                ran = ran or STAGES in command
        self._stages.append((time.monotonic(), ran))

    def _is_of_run(self, process: psutil.Process) -> bool:
        """Whether its environment has the mark, or its parent is of the run.

        Ray's workers overwrite their environment with their title.
        """
        if process.pid == os.getpid():
            return False
        marked = PORTS.items() <= process.environ().items()
        parent = None if marked else process.parent()
        key = parent and (parent.pid, parent.create_time())
        return marked or (key is not None and self._parts.get(key) is not None)


def part_of(command: str) -> str:
    """Say what a process of the run is for, by its command line."""
    return next((part for words, part in PARTS.items() if words in command), WORK)


def run(folder: Path, account: Account) -> None:
    """Run the flow in a folder, from the first to the last line of its log."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    process = subprocess.Popen(
        [sys.executable, "-m", "infra.local", "benchmark"],
        cwd=folder,
        env=os.environ | PORTS | {"PATH": path, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with account.watching():
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if "Beginning flow run" in line:
                account.begin()
            if LOGGED.match(line):
                account.proceed()
    if process.wait() != 0:
        raise SystemExit(f"error: the flow failed in {folder}")
    account.close()


if __name__ == "__main__":
    main()
