"""The programs behind a run: the Prefect server and worker, and the MLflow server, on loopback.

Each writes to .work/logs/<name>.log and is known by .work/pids/<name>.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dxai import processes
from infra import pids

HOST = "127.0.0.1"
PORTS = {"prefect": ("DXAI_PREFECT_PORT", 4250), "mlflow": ("DXAI_MLFLOW_PORT", 5050)}
"""Environment variable and default of each port; prefect.toml repeats the first default."""

POOL, QUEUES = "dxai-local", ("default", "nightly")
START_TIMEOUT = 180.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGKILL)


class ServiceError(RuntimeError):
    """A program that did not start, or a port that somebody else has; the text says what to do."""


@dataclass(frozen=True)
class Place:
    """A folder with a project in it, and where its services are.

    Attributes
    ----------
    root : Path
        The project's folder, absolute.
    """

    root: Path

    @property
    def work(self) -> Path:
        """Where everything that runs leaves its files."""
        return self.root / ".work"

    @property
    def mark(self) -> str:
        """What tells our processes by their environment."""
        return f"PREFECT_HOME={self.work / 'prefect'}"

    def pid_file(self, name: str) -> Path:
        """The file that a service keeps locked."""
        return self.work / "pids" / name

    def port(self, name: str) -> int:
        """That of the running service, else what the environment says, else the default."""
        found = running(self, name)
        variable, default = PORTS[name]
        try:
            return found["port"] if found else int(os.environ.get(variable, default))
        except ValueError:
            raise ServiceError(f"{variable} is {os.environ[variable]!r}, not a number") from None

    def url(self, name: str) -> str:
        """Address of the page of a service."""
        return f"http://{HOST}:{self.port(name)}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's database."""
        return f"sqlite:///{self.work / 'mlflow.db'}"

    def environment(self) -> dict[str, str]:
        """What every program here is started with: no telemetry, own folders, this Python first."""
        own = {
            "PREFECT_HOME": str(self.work / "prefect"),
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "PREFECT_SERVER_API_HOST": HOST,
            "PREFECT_SERVER_API_PORT": str(self.port("prefect")),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that wait for jobs
            "DVC_NO_ANALYTICS": "true",
            "DO_NOT_TRACK": "true",  # `1` would not be understood everywhere
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PATH": os.pathsep.join(
                [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
            ),
        }
        foreign = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE")
        return {k: v for k, v in os.environ.items() if k not in foreign} | own


def command(place: Place, name: str) -> list[str]:
    """How a service is started."""
    arguments = {
        "prefect": ["prefect", "server", "start"],
        "worker": ["prefect", "worker", "start", "--pool", POOL, "--name", POOL],
        "mlflow": ["mlflow", "server", "--host", HOST, "--workers", "1"],
    }[name]
    if name == "worker":
        arguments += ["--type", "process"]
    if name == "mlflow":
        arguments += ["--port", str(place.port("mlflow"))]
        arguments += ["--backend-store-uri", place.tracking_uri]
        arguments += ["--default-artifact-root", str(place.work / "mlflow-artifacts")]
    return [sys.executable, "-m", *arguments]


def running(place: Place, name: str) -> dict[str, int] | None:
    """Process id and port of a running service, None if it does not run."""
    return pids.read(place.pid_file(name))


def alive(place: Place, name: str) -> bool:
    """Whether a service runs, or at least something that it started and did not outlive."""
    return bool(running(place, name) or pids.remains(place.pid_file(name), place.mark))


def start(place: Place, name: str) -> subprocess.Popen[bytes] | None:
    """Start a service; None if it runs already. What a killed one left is ended first.

    Raises
    ------
    ServiceError
        If another program has its port.
    """
    if running(place, name):
        return None
    stop(place, name)
    port = place.port(name) if name in PORTS else 0
    if port and not port_is_free(port):
        raise ServiceError(
            f"port {port}, meant for the {name} server, is taken by another program; "
            f"choose another one with {PORTS[name][0]}=..."
        )
    for folder in ("logs", "prefect", "mlflow-artifacts"):
        (place.work / folder).mkdir(parents=True, exist_ok=True)
    log = place.work / "logs" / f"{name}.log"
    arguments, environment = command(place, name), place.environment()
    with pids.hold(place.pid_file(name)) as file, log.open("ab") as output:
        if file is None:  # somebody was quicker
            return None
        process = subprocess.Popen(
            arguments,
            cwd=place.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[file.fileno()],  # the lock lives as long as the program
            start_new_session=True,
        )
        pids.write(file, process.pid, port)
    return process


def stop(place: Place, name: str, grace: float = 15.0) -> bool:
    """End a service and all that it started; False if there was nothing to end."""
    found = running(place, name)
    leader = found["pid"] if found else pids.remains(place.pid_file(name), place.mark)
    if leader is None:
        return False

    def reap() -> None:
        with suppress(ChildProcessError):  # started by another launcher
            os.waitpid(leader, os.WNOHANG)

    processes.end_group(leader, STOP_SIGNALS, grace, reap)
    place.pid_file(name).unlink(missing_ok=True)
    return True


@contextmanager
def alone(place: Place, name: str) -> Iterator[None]:
    """Hold the folder for one command at a time.

    Raises
    ------
    ServiceError
        If another process holds it; the text names that one.
    """
    with pids.hold(place.pid_file(name)) as file:
        if file is None:
            other = running(place, name) or {"pid": 0}
            raise ServiceError(f"another {name} runs in this folder: process {other['pid']}")
        pids.write(file, os.getpid())
        yield


def port_is_free(port: int) -> bool:
    """Whether a server could listen on a port of the loopback device."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def healthy(url: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait(place: Place, name: str, url: str, say: Callable[[str], None]) -> None:
    """Wait until a service answers, saying every few seconds that it does not yet.

    Raises
    ------
    ServiceError
        If it ends, or does not answer in time; its last lines are in the text.
    """
    began = told = time.monotonic()
    while not healthy(url):
        check(place, name)
        now = time.monotonic()
        if now - began > START_TIMEOUT:
            raise ServiceError(f"{name} does not answer at {url}:\n{last_lines(place, name)}")
        if now - told > 5:
            told = now
            say(f"{name}: starting, {now - began:.0f} s")
        time.sleep(0.2)
    if began != told or time.monotonic() - began > 1:
        say(f"{name}: ready after {time.monotonic() - began:.0f} s")


def check(place: Place, name: str) -> None:
    """`ServiceError`, with its last lines, if a service has ended."""
    if not alive(place, name):
        raise ServiceError(f"{name} has ended:\n{last_lines(place, name)}")


def last_lines(place: Place, name: str, lines: int = 15) -> str:
    """The end of a service's log."""
    log = place.work / "logs" / f"{name}.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join([*text.splitlines()[-lines:], f"(all of it: {log})"])
