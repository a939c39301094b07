"""Start, find and stop the programs of `infra.service_definitions` on this machine.

Each writes to .work/logs/<name>.log and is known by .work/pids/<name>.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dxai.utils import processes
from infra import credentials, pid_files

HOST = "127.0.0.1"
PORTS = {
    "prefect": ("DXAI_PREFECT_PORT", 4250),
    "mlflow": ("DXAI_MLFLOW_PORT", 5050),
    "postgres": ("DXAI_POSTGRES_PORT", 5450),
    "store": ("DXAI_STORE_PORT", 9050),
    "ray-head": ("DXAI_RAY_PORT", 6390),
}
"""Environment variable and default of each port; prefect.toml repeats the first default."""

BUCKET = "dxai"
POOL, QUEUES = "dxai-local", ("default", "nightly")
START_TIMEOUT = 180.0
FOREIGN = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_PROFILE")
"""Variables of the user's own that would lead elsewhere."""


class ServiceError(RuntimeError):
    """A program that did not start, or a port that somebody else has; the text says what to do."""


def module(*arguments: str) -> list[str]:
    """`python -m ...` with this Python."""
    return [sys.executable, "-m", *arguments]


@dataclass(frozen=True)
class Place:
    """A folder with a project in it, and where its services are.

    Attributes
    ----------
    root : Path
        The project's folder, absolute.
    cluster : bool
        Whether the services are those of a cluster, on PostgreSQL, or the few of one user, on
        SQLite.
    """

    root: Path
    cluster: bool = False

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

    def log(self, name: str) -> Path:
        """What a service wrote, all its starts one after the other."""
        return self.work / "logs" / f"{name}.log"

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

    def database(self, name: str, driver: str) -> str:
        """URL of a database of PostgreSQL; the password is in a file that PGPASSFILE names."""
        return f"postgresql+{driver}://{credentials.USER}@{HOST}:{self.port('postgres')}/{name}"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow's clients write: its server, or the database of one user."""
        return self.url("mlflow") if self.cluster else f"sqlite:///{self.work / 'mlflow.db'}"

    def environment(self) -> dict[str, str]:
        """What every program here is started with: no telemetry, own folders, this Python first.

        No value is secret: what is lies in files that are named.
        """
        own = {
            "PREFECT_HOME": str(self.work / "prefect"),
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "PREFECT_SERVER_API_HOST": HOST,
            "PREFECT_SERVER_API_PORT": str(self.port("prefect")),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "DXAI_MLFLOW_URL": self.url("mlflow"),  # a run links to it, also where that is a file
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that wait for jobs
            "DVC_NO_ANALYTICS": "true",
            "DO_NOT_TRACK": "true",  # `1` would not be understood everywhere
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PATH": os.pathsep.join(
                [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
            ),
        }
        inherited = {k: v for k, v in os.environ.items() if k not in FOREIGN}
        if self.cluster:
            own |= {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database("prefect", "asyncpg"),
                "RAY_ADDRESS": f"{HOST}:{self.port('ray-head')}",
                "RAY_AUTH_MODE": "token",
                # Or Ray would look for this head at the machine's outer address.
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                **credentials.environment(self.work),
            }
            inherited = {k: v for k, v in inherited.items() if not k.startswith("AWS_")}
        return inherited | own


@dataclass(frozen=True)
class Service:
    """A program that runs as long as nobody stops it.

    Attributes
    ----------
    name : str
        Of its log and its file in .work/pids; one with a port has the same name in `PORTS`.
    command : callable
        How it is started in a place.
    healthy : callable
        Whether it does its work there; asked again and again after a start.
    needs : tuple of str
        Services that have to be healthy before it is started.
    outlives : tuple of str
        Services that cannot go on without this very process, and are ended before it is replaced.
    prepare : callable
        What is done before each start; it is given the place and how to tell about it.
    environment : callable
        Its environment.
    user : callable
        The user it runs as, None for whoever starts it.
    signals : sequence of Signals
        How it is ended: the next one is sent if the one before was not enough.
    grace : float
        Seconds given to each signal.
    """

    name: str
    command: Callable[[Place], list[str]]
    healthy: Callable[[Place], bool]
    needs: tuple[str, ...] = ()
    outlives: tuple[str, ...] = ()
    prepare: Callable[[Place, Callable[[str], None]], None] = lambda place, say: None
    environment: Callable[[Place], dict[str, str]] = Place.environment
    user: Callable[[], str | None] = lambda: None
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)
    grace: float = 15.0


def run(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m ...` in a place, to its end."""
    return subprocess.run(
        module(*arguments),
        cwd=place.root,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def running(place: Place, name: str) -> dict[str, int] | None:
    """Process id, port and start in the log of a running service, None if it does not run."""
    return pid_files.read(place.pid_file(name))


def alive(place: Place, name: str) -> bool:
    """Whether a service runs, or at least something that it started and did not outlive."""
    return bool(running(place, name) or pid_files.remains(place.pid_file(name), place.mark))


def start(
    place: Place, service: Service, say: Callable[[str], None] = print
) -> subprocess.Popen[bytes] | None:
    """Start a service; None if it runs already. What a killed one left is ended first.

    Raises
    ------
    ServiceError
        If another program has its port, or something that it needs is not installed.
    """
    name = service.name
    if running(place, name):
        return None
    stop(place, service)
    port = place.port(name) if name in PORTS else 0
    if port and not port_is_free(port):
        raise ServiceError(
            f"port {port}, meant for the {name} server, is taken by another program; "
            f"choose another one with {PORTS[name][0]}=..."
        )
    for folder in ("logs", "prefect", "mlflow-artifacts"):
        (place.work / folder).mkdir(parents=True, exist_ok=True)
    if place.cluster:
        credentials.make(place.work, f"{HOST}:{place.port('store')}")
    service.prepare(place, say)
    user = service.user()
    command, environment = service.command(place), service.environment(place)
    with pid_files.hold(place.pid_file(name)) as file, place.log(name).open("ab") as output:
        if file is None:  # somebody was quicker
            return None
        began = output.tell()  # the program may write before its number is known
        process = subprocess.Popen(
            command,
            cwd=place.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[file.fileno()],  # the lock lives as long as the program
            start_new_session=True,
            **identity(user),
        )
        pid_files.write(file, process.pid, port, began)
    return process


def start_all(
    place: Place, services: Iterable[Service], started: list[str], say: Callable[[str], None]
) -> None:
    """Start what does not run, each as soon as what it needs does its work; wait for all of them.

    Parameters
    ----------
    place : Place
    services : iterable of Service
    started : list of str
        Gets the names of those that did not run.
    say : callable
        Told what is going on.

    Raises
    ------
    ServiceError
        If one ends, or does not do its work in time; its last lines are in the text.
    """
    waiting = {service.name: service for service in services}
    everything = dict(waiting)
    begun: dict[str, float] = {}
    told = time.monotonic()
    while waiting:
        for name, service in list(waiting.items()):
            if any(need in waiting for need in service.needs):
                continue
            if name not in begun:
                begun[name] = time.monotonic()
                if not running(place, name):
                    for other in service.outlives:
                        if other in everything:
                            stop(place, everything[other])
                if start(place, service, say):
                    started.append(name)
            seconds = time.monotonic() - begun[name]
            if service.healthy(place):
                del waiting[name]
                if seconds > 1:
                    say(f"{name}: ready after {seconds:.0f} s")
                continue
            check(place, name)
            if seconds > START_TIMEOUT:
                words = last_lines(place, name)
                raise ServiceError(f"{name} is not ready after {seconds:.0f} s:\n{words}")
        if waiting and time.monotonic() - told > 5:
            told = time.monotonic()
            ages = [f"{name} ({told - begun[name]:.0f} s)" for name in waiting if name in begun]
            say(f"starting: {', '.join(ages)}")
        time.sleep(0.2 if waiting else 0)


def stop(place: Place, service: Service) -> bool:
    """End a service and all that it started; False if there was nothing to end."""
    path = place.pid_file(service.name)
    found = running(place, service.name)
    leader = found["pid"] if found else pid_files.remains(path, place.mark)
    if leader is None:
        return False

    def reap() -> None:
        with suppress(ChildProcessError):  # started by another launcher
            os.waitpid(leader, os.WNOHANG)

    processes.end_group(leader, service.signals, service.grace, reap)
    path.unlink(missing_ok=True)
    return True


@contextmanager
def alone(place: Place, name: str) -> Iterator[None]:
    """Hold the folder for one command at a time.

    Raises
    ------
    ServiceError
        If another process holds it; the text names that one.
    """
    with pid_files.hold(place.pid_file(name)) as file:
        if file is None:
            other = running(place, name) or {"pid": 0}
            raise ServiceError(f"another {name} runs in this folder: process {other['pid']}")
        pid_files.write(file, os.getpid())
        yield


def identity(user: str | None) -> dict[str, Any]:
    """Arguments of `subprocess` by which a program runs as another user and nothing else."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def port_is_free(port: int) -> bool:
    """Whether a server could listen on a port of the loopback device."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listens(place: Place, name: str) -> bool:
    """Whether a service takes connections."""
    try:
        socket.create_connection((HOST, place.port(name)), timeout=5).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether a server says that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def said(place: Place, name: str, text: str) -> bool:
    """Whether a service has written something since it was started."""
    found = running(place, name)
    return found is not None and text in _log_since(place, name, found["log"])


def check(place: Place, name: str) -> None:
    """`ServiceError`, with its last lines, if a service has ended."""
    if not alive(place, name):
        raise ServiceError(f"{name} has ended:\n{last_lines(place, name)}")


def last_lines(place: Place, name: str, lines: int = 15) -> str:
    """The end of a service's log."""
    text = _log_since(place, name, 0)
    return "\n".join([*text.splitlines()[-lines:], f"(all of it: {place.log(name)})"])


def _log_since(place: Place, name: str, start: int) -> str:
    try:
        return place.log(name).read_bytes()[start:].decode(errors="replace")
    except FileNotFoundError:
        return ""
