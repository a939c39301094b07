"""Small trainings in separate processes, for tests to run, inspect and kill.

`python -m tests.ray_jobs FILE` is such a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from dxai.config.schema import TrainingParams
from dxai.stages import run_stage
from dxai.training.decomposition import DecompositionJob
from dxai.training.runtime.supervisor import launch
from dxai.utils.files import read_json, write_json
from tests.unit.training.test_decomposition import SMALL

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = SMALL.replace(
    steps=150,
    discriminator_width=32,  # 6 MB a checkpoint, to be found while it is written
    checkpoint_every=5,
    log_every=1,
    panel_every=50,
)
"""About 20 steps a second on one core at 16 px."""
TRAINING = TrainingParams(cpus_per_worker=1, device="cpu")
NAME = "training"
MARK = "DXAI_TEST_TRAINING"
"""Environment variable that marks the processes of a training."""
TITLES = {
    "worker": "ray::RayTrainWorker",
    "trainer": "ray::TrainController",
    "raylet": "raylet/raylet ",
    "gcs_server": "gcs/gcs_server ",
    "driver": "dxai.training.runtime.ray_driver import main",
}
"""Text in the command line of each kind of process."""
OPEN = {"RAY_AUTH_MODE": "disabled"}
"""For a cluster's nodes and clients; the default depends on whether the user has a token."""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as the kernel writes it, for IPv4 and IPv6."""
PATIENCE = 120.0
"""Longest wait on a busy machine, in seconds."""
T = TypeVar("T")


def wait_for(
    ready: Callable[[], T],
    what: str | Callable[[], str],
    seconds: float = PATIENCE,
    pause: float = 0.02,
) -> T:
    """Wait until `ready` returns a true value, and return it; else fail, saying `what`."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        if time.monotonic() > deadline:
            raise AssertionError(f"never happened: {what() if callable(what) else what}")
        time.sleep(pause)
    return value


def session(leader: int) -> dict[int, str]:
    """Map the running processes of a session to their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # pid (name) state parent group session ..
            values = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(values[3]) == leader and values[0] not in "ZX":
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = command
    return found


def listening(pids: Iterable[int]) -> set[str]:
    """Return the addresses, in the kernel's notation, on which processes listen."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].partition(":")[0])
    return found


def children(parent: int) -> list[int]:
    """Return the direct children of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            values = path.read_text().rpartition(")")[2].split()
            if int(values[1]) == parent and values[0] not in "ZX":
                found.append(int(path.parent.name))
    return found


def command_of(pid: int) -> str:
    """Return a process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def state_of(pid: int) -> str:
    """Return the letter of a process's state in Linux, T if stopped; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@dataclass
class Training:
    """A training that can be started repeatedly.

    Attributes
    ----------
    root : Path
        Folder for work/, the output, and, unless `params` names a storage, checkpoints/.
    job : DecompositionJob
    params : TrainingParams
    variables : dict
        Additional environment variables.
    """

    root: Path
    job: DecompositionJob
    params: TrainingParams
    variables: dict[str, str] = field(default_factory=dict)
    name: str = NAME
    process: subprocess.Popen[bytes] | None = None
    sessions: set[int] = field(default_factory=set)

    def start(self) -> Training:
        """Start or continue."""
        self.root.mkdir(parents=True, exist_ok=True)
        params = self.params
        if params.storage == TRAINING.storage:
            params = params.replace(storage=str(self.root / "checkpoints"))
        content = (self.job, self.name, self.name, self.root / "work", params)
        file = self.root / "task.pickle"
        file.write_bytes(pickle.dumps((content, self.root / "result.json")))
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        with (self.root / "said.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.ray_jobs", str(file)],
                cwd=ROOT,
                env=environment | {"PYTHONUNBUFFERED": "1", MARK: str(self.root)} | self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.sessions.add(self.process.pid)
        return self

    @property
    def pid(self) -> int:
        """Process id of the stage process."""
        assert self.process is not None
        return self.process.pid

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end and return the exit code."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end: {self.said()}") from None

    def result(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait for success and return digests of the final weights and of the history."""
        assert self.wait(seconds) == 0, self.said()
        return read_json(self.root / "result.json")

    # --------------------------------------------------------------------------- what it shows
    def said(self) -> str:
        """Return everything that it printed."""
        return (self.root / "said.txt").read_text(errors="replace")

    def continued(self) -> list[int]:
        """Return the steps from which it continued."""
        return [int(n) for n in re.findall(r"continuing from step (\d+)", self.said())]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the stored events of one kind."""
        return events_of(self.root / "work/events.jsonl", kind)

    def step(self) -> int:
        """Return the last reported step since the last start; 0 before the first."""
        rows = self.events("row")
        started = max((event["time"] for event in self.events("start")), default=0.0)
        return rows[-1]["step"] if rows and rows[-1]["time"] > started else 0

    def starts(self) -> int:
        """Return how often the training itself started or continued."""
        return len(self.events("start"))

    @property
    def folder(self) -> Path:
        """Folder of the checkpoints."""
        if "://" in self.params.storage:
            return Path(self.variables["DXAI_CACHE"]) / "checkpoints" / self.name
        return self.root / "checkpoints" / self.name

    def saved(self) -> int:
        """Return the step of the last checkpoint with a manifest; 0 without one."""
        return max((int(path.stem[5:]) for path in self.folder.glob("step-*.json")), default=0)

    def half_written(self) -> list[Path]:
        """Return the files of tensors that still have a temporary name."""
        return list(self.folder.glob(".step-*.pt.*.tmp"))

    def driver(self) -> int | None:
        """Return the Ray process that the stage watches."""
        for pid in children(self.pid):
            with contextlib.suppress(OSError):
                if TITLES["driver"] in Path(f"/proc/{pid}/cmdline").read_text():
                    self.sessions.add(pid)
                    return pid
        return None

    def find(self, kind: str) -> int | None:
        """Return one of Ray's processes."""
        driver = self.driver()
        found = session(driver) if driver else {}
        return next((pid for pid, command in found.items() if TITLES[kind] in command), None)

    # ------------------------------------------------------------------------ disturb
    def kill(self, kind: str) -> int:
        """Kill -9 one of Ray's processes and return the last reported step."""
        pid = wait_for(lambda: self.find(kind), f"a {kind}")
        os.kill(pid, signal.SIGKILL)
        return self.step()

    def kill_when(
        self, kind: str, moment: Callable[[], bool], what: str, pause: float = 0.005
    ) -> None:
        """Kill -9 one of Ray's processes while `moment` holds.

        The process is stopped first, so that `moment` still holds when it is killed.
        """
        pid = wait_for(lambda: self.find(kind), f"a {kind}")

        def hit() -> bool:
            if not moment():
                return False
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: state_of(pid) in "TZX", "a stop")
            if moment():
                os.kill(pid, signal.SIGKILL)
                return True
            os.kill(pid, signal.SIGCONT)
            return False

        wait_for(hit, what, pause=pause)
        wait_for(lambda: state_of(pid) in "ZX", "its end")

    def leftovers(self) -> dict[int, str]:
        """Return its running processes, including those of any Ray session that it started."""
        mark = f"{MARK}={self.root}\0"
        for folder in Path("/proc").glob("[0-9]*"):  # drivers that `driver` never found
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_text(errors="replace"):
                    self.sessions.add(os.getsid(int(folder.name)))
        return {pid: text for leader in self.sessions for pid, text in session(leader).items()}

    def close(self) -> None:
        """Kill all remaining processes."""
        while left := self.leftovers():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert self.process is not None
            self.process.poll()
            time.sleep(0.02)


def events_of(path: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind in a file."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last may be cut off
    return [event for line in lines if (event := _parsed(line)).get("kind") == kind]


def _parsed(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # written by a process that was killed
        return {}


@dataclass
class Node:
    """A node of a cluster: a raylet and its processes, in a session of its own."""

    process: subprocess.Popen[bytes]
    address: str

    @property
    def found(self) -> dict[int, str]:
        """Return its running processes."""
        return session(self.process.pid)

    def kill(self, kind: str | None = None) -> None:
        """Kill -9 one of its processes, or all, as if the machine had failed."""
        while left := [p for p, c in self.found.items() if kind is None or TITLES[kind] in c]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.02)


@contextlib.contextmanager
def cluster(cpus: Sequence[int], log: Path) -> Iterator[list[Node]]:
    """Run a Ray cluster on this machine, with a node per number of CPUs; the first is the head.

    Each node has its own address, like separate machines (all of 127.0.0.0/8 is this machine).
    """
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
    probe.close()
    nodes: list[Node] = []
    try:
        for count in cpus:
            add_node(nodes, address, count, log)
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def add_node(nodes: list[Node], address: str, cpus: int, log: Path) -> None:
    """Start another node of a cluster, the head if there is none, and wait until it has joined."""
    program, number = str(Path(sys.executable).with_name("ray")), len(nodes)
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "DXAI_"))}
    outside |= {"OMP_WAIT_POLICY": "PASSIVE", "RAY_TRAIN_V2_ENABLED": "1", **OPEN}
    where = [f"--address={address}"]
    if not nodes:
        where = ["--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false"]
    command = [program, "start", "--block", "--disable-usage-stats", *where]
    command += ["--object-store-memory=100000000", f"--num-cpus={cpus}"]
    said = log / f"node-{number}.txt"
    for _ in range(2):  # Ray gives up after 30 s of a busy machine
        with said.open("wb") as output:
            process = subprocess.Popen(
                [*command, f"--node-ip-address=127.0.0.{number + 1}"],
                env=outside,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        nodes[number:] = [Node(process, address)]
        wait_for(
            lambda ended=process.poll: ended() is not None or "runtime started" in said.read_text(),
            lambda: f"start of node {number}: {said.read_text()}",
        )
        if process.poll() is None:
            return
        nodes[number].kill()
    raise AssertionError(f"node {number} does not start: {said.read_text()}")


def digest(value: Any) -> str:
    """Return a digest of the exact bits of tensors and plain values."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(f"{value.dtype} {tuple(value.shape)}".encode())
            found.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                found.update(f"{key!r}:".encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            found.update(f"{value!r};".encode())

    add(value)
    return found.hexdigest()


def main(file: str) -> None:
    """Train, and write digests of the result."""
    arguments, target = pickle.loads(Path(file).read_bytes())
    state, _ = launch(*arguments)
    rows = [row | {"seconds": 0} for row in state["history"]]
    result = {"weights": digest(state["networks"]), "history": digest(rows), "steps": len(rows)}
    torch.save(state["networks"], target.with_suffix(".pt"))
    write_json(target, result)


if __name__ == "__main__":
    run_stage(main)
