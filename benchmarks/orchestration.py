"""Measure the overhead of Prefect and DVC: a run of the flow against the commands of its stages.

Run as `python -m benchmarks.orchestration`. Both run in fresh clones of the last commit, one after
the other; the difference of their times is the flow's overhead (DVC's hashing and locking,
Prefect's tasks, the tables as artifacts, the run in MLflow). In between, the flow runs once more
with nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from dxai.config.profiles import select_profile
from dxai.paths import Paths
from dxai.utils import shared_process
from dxai.utils.files import read_json

PORTS = {"DXAI_PREFECT_PORT": "4261", "DXAI_MLFLOW_PORT": "5061"}
ONE_BY_ONE = {"DXAI_LANES": "1"}
"""As the bare commands run."""
STAGE, POLL_SECONDS = "dxai.stages.", 1.0
LOGGED = re.compile(r"\d\d:\d\d:\d\d \| ")
"""Start of a line of the flow's log, which the launcher's own lines do not have."""


def main() -> None:
    """Run both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="the settings (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        with_flow, bare = (clone(Path(folder, name), options.profile) for name in ("flow", "bare"))
        flow, idle = seconds_of_flow(with_flow)
        commands = commands_of(with_flow)
        again, _ = seconds_of_flow(with_flow)
        work = seconds_of(bare, commands)
    overhead = flow - work
    print(f"profile {options.profile}, {len(commands)} items")
    print(f"commands alone          {work:8.1f} s")
    print(f"the flow                {flow:8.1f} s")
    print(
        f"overhead                {overhead:8.1f} s, {100 * overhead / work:.1f}% of the commands, "
        f"{overhead / len(commands):.2f} s per item"
    )
    print(f"no stage ran for        {idle:8.1f} s of it, {100 * idle / (flow - idle):.1f}%")
    print(f"the flow, nothing to do {again:8.1f} s, {again / len(commands):.2f} s per item")


def clone(folder: Path, profile: str) -> Path:
    """Clone the last commit into a folder, and select a profile there."""
    subprocess.run(["git", "clone", "--quiet", Path.cwd(), folder], check=True)
    select_profile(Paths(folder).params, profile)
    return folder


def environment() -> Mapping[str, str]:
    """Return the environment of both: this Python, and ports of their own."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | PORTS | ONE_BY_ONE | {"PATH": path, "OMP_WAIT_POLICY": "PASSIVE"}


def seconds_of_flow(folder: Path) -> tuple[float, float]:
    """Time a run from the first to the last line of its log, and how long no stage ran in it."""
    command = [sys.executable, "-m", "infra.local", "benchmark"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    )
    began = ended = 0.0
    with watched(folder) as samples:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if "Beginning flow run" in line:
                began = time.monotonic()
            if LOGGED.match(line):
                ended = time.monotonic()
    if process.wait() != 0:
        raise SystemExit(f"error: the flow failed in {folder}")
    idle = [not runs for when, runs in samples if began <= when <= ended]
    return ended - began, (ended - began) * sum(idle) / len(idle)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[list[tuple[float, bool]]]:
    """Sample during the block whether a stage runs in a folder; yields the times and answers."""
    samples: list[tuple[float, bool]] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(POLL_SECONDS):
            runs = any(is_stage(folder, process) for process in psutil.process_iter())
            samples.append((time.monotonic(), runs))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def is_stage(folder: Path, process: psutil.Process) -> bool:
    """Whether a process is a stage that runs in a folder."""
    try:
        runs_stage = any(STAGE in word for word in process.cmdline())
        return runs_stage and Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:  # it has just ended
        return False


def commands_of(folder: Path) -> list[str]:
    """List the commands of the stages that ran, in DVC's order."""
    from flows.dvc_runner import graph

    ran = read_json(Paths(folder).runs_known)
    return [ran[target]["cmd"] for target in graph(folder)]


def seconds_of(folder: Path, commands: list[str]) -> float:
    """Time the commands, run one after the other with one shared Ray, as in the flow."""
    cluster = Paths(folder).ray
    began = time.monotonic()
    with shared_process.hold(cluster), watched(folder):  # sampling costs as much as in the flow
        for command in commands:
            subprocess.run(
                shlex.split(command),
                cwd=folder,
                env=environment() | {"DXAI_CLUSTER": str(cluster)},
                check=True,
            )
    return time.monotonic() - began


if __name__ == "__main__":
    main()
