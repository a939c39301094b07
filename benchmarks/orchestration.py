"""What Prefect and DVC cost: a run of the flow beside the bare commands of its stages.

Run as `python -m benchmarks.orchestration`. Both work in fresh clones of the last commit, one after
the other; what the flow adds (DVC's hashing and locking, Prefect's tasks, the tables as artifacts,
the run in MLflow) is the difference of the two times. Between them it runs with nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from dxai.utils import dvc_files, shared_process

PORTS = {"DXAI_PREFECT_PORT": "4261", "DXAI_MLFLOW_PORT": "5061"}
PROC, STAGE, LOOK_EVERY = Path("/proc"), b"dxai.stages.", 1.0
LOGGED = re.compile(r"\d\d:\d\d:\d\d \| ")
"""A line of the flow's log, not of what is said around it."""


def main() -> None:
    """Run both and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help="a profile whose items run one by one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        with_flow, bare = clone(Path(folder, "flow")), clone(Path(folder, "bare"))
        flow, idle = seconds_of_flow(with_flow, options.profile)
        commands = commands_of(with_flow)
        again, _ = seconds_of_flow(with_flow, options.profile)
        shutil.copy(with_flow / "params.yaml", bare)  # with the profile in it
        work = seconds_of(bare, commands)
    over = flow - work
    print(f"profile {options.profile}, {len(commands)} items")
    print(f"commands alone          {work:8.1f} s")
    print(f"the flow                {flow:8.1f} s")
    print(f"more                    {over:8.1f} s, {100 * over / work:.1f}% of the work,", end=" ")
    print(f"{over / len(commands):.2f} s an item")
    print(f"no stage ran for        {idle:8.1f} s of it, {100 * idle / (flow - idle):.1f}%")
    print(f"the flow, nothing to do {again:8.1f} s, {again / len(commands):.2f} s an item")


def clone(folder: Path) -> Path:
    """The last commit, in a folder of its own."""
    subprocess.run(["git", "clone", "--quiet", Path.cwd(), folder], check=True)
    return folder


def environment() -> Mapping[str, str]:
    """Of both: this Python, and ports that nobody else has."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | PORTS | {"PATH": path, "OMP_WAIT_POLICY": "PASSIVE"}


def seconds_of_flow(folder: Path, profile: str) -> tuple[float, float]:
    """From its first line in the log to its last, and for how much of that no stage ran."""
    command = [sys.executable, "-m", "infra.local", "benchmark", "--profile", profile]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    )
    began = ended = 0.0
    with watched(folder) as looks:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if "Beginning flow run" in line:
                began = time.monotonic()
            if LOGGED.match(line):
                ended = time.monotonic()
    if process.wait() != 0:
        raise SystemExit(f"error: the flow failed in {folder}")
    idle = [not runs for when, runs in looks if began <= when <= ended]
    return ended - began, (ended - began) * sum(idle) / len(idle)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[list[tuple[float, bool]]]:
    """When it was looked whether a stage runs in a folder, and whether one did."""
    looks: list[tuple[float, bool]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            runs = any(is_stage(folder, process) for process in PROC.glob("[0-9]*"))
            looks.append((time.monotonic(), runs))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        over.set()
        thread.join()


def is_stage(folder: Path, process: Path) -> bool:
    """Whether a process, a folder of /proc, is a stage that runs in a folder."""
    try:
        command = (process / "cmdline").read_bytes()
        return STAGE in command and Path(os.readlink(process / "cwd")).is_relative_to(folder)
    except OSError:  # it has just ended
        return False


def commands_of(folder: Path) -> list[str]:
    """What ran, in DVC's order."""
    from flows.dvc_runner import groups

    ran = dvc_files.stages(folder / "dvc.lock")
    targets = [target for group in groups(folder) for target in group.targets]
    return [ran[target]["cmd"] for target in targets]


def seconds_of(folder: Path, commands: list[str]) -> float:
    """All of them, one after the other, with the one Ray that a run of the flow has too."""
    cluster = folder / ".work/cluster"
    began = time.monotonic()
    with shared_process.hold(cluster), watched(folder):  # which costs as much here as there
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
