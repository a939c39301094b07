"""Start, find and stop the services of `infra.service_definitions` on this machine.

Each writes to .work/logs/<name>.log. While running, it locks .work/pids/<name>, which has its
process id, its port and the offset of its log. An unlocked file belongs to a service that has
ended, even if its process id has been reused since.
"""

from __future__ import annotations

import fcntl
import json
import logging
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
from typing import IO, Any

import psutil

from dxai.paths import Paths
from dxai.utils import addresses, files, processes
from infra import credentials, log_files
from infra.ports import HOST, PORTS

logger = logging.getLogger(__name__)

BUCKET = "dxai"
START_TIMEOUT = 180.0
OWN_PREFIX, KEPT_PREFIX = "PREFECT_", "PREFECT_LOGGING_"
"""Prefect's settings in the user's shell are for other servers and databases, so services do not
inherit them, except for those of the log's form."""
LOOPS = {
    f"PREFECT_SERVER_SERVICES_{service}_LOOP_SECONDS": seconds
    for service, seconds in (
        ("LATE_RUNS", "15"),
        ("PAUSE_EXPIRATIONS", "60"),
        ("CLEANUP_RECONCILER", "60"),
        ("SCHEDULER_RECENT_DEPLOYMENTS", "60"),
    )
}
"""How often the server looks for what is rare here; every 5 seconds costs .3% to .5% of a core."""


class ServiceError(RuntimeError):
    """A service did not start, or its port is taken; the text says what to do."""


def python_module(*arguments: str) -> list[str]:
    """Return the command `python -m ...` with this Python."""
    return [sys.executable, "-m", *arguments]


@dataclass(frozen=True)
class Stack:
    """The services of one project folder, whose path is absolute."""

    root: Path
    cluster: bool = False
    """Whether it has the services of a cluster, on PostgreSQL, or of one user, on SQLite."""

    @property
    def work(self) -> Path:
        """Return the folder for the files of everything that runs."""
        return Paths(self.root).work

    @property
    def prefect_home(self) -> Path:
        """Return PREFECT_HOME, by which the processes of this stack are recognised."""
        return self.work / "prefect"

    def pid_file(self, name: str) -> Path:
        """Return the file that a service keeps locked."""
        return self.work / "pids" / name

    def log(self, name: str) -> Path:
        """Return the log of a service; each start appends to it."""
        return self.work / "logs" / f"{name}.log"

    def port(self, name: str) -> int:
        """Return the port of the running service, else from the environment, else the default."""
        found = running(self, name)
        variable, default = PORTS[name]
        if found:
            return found["port"]
        text = os.environ.get(variable) or str(default)
        if not (text.isascii() and text.isdigit()):
            raise ServiceError(f"{variable} is {text!r}, not a number")
        if not 0 < int(text) < 65536:
            raise ServiceError(f"{variable} is {text}; a port is a number from 1 to 65535")
        return int(text)

    def url(self, name: str) -> str:
        """Return the address of a service's web page."""
        return f"http://{HOST}:{self.port(name)}"

    def database(self, name: str, driver: str) -> str:
        """Return the URL of a PostgreSQL database; the file at PGPASSFILE has the password."""
        return f"postgresql+{driver}://{credentials.USER}@{HOST}:{self.port('postgres')}/{name}"

    @property
    def local_store(self) -> str:
        """Return the address of one user's MLflow database."""
        return addresses.sqlite(Paths(self.root).mlflow_database, "pysqlite")

    @property
    def given_store(self) -> str | None:
        """Return the MLflow store that the user's shell names, unless it is this folder's own."""
        given = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
        return given if given not in ("", self.local_store, self.url("mlflow")) else None

    @property
    def tracking_uri(self) -> str:
        """Return where MLflow's clients write: its server, or one user's database directly.

        One user's may be another one, by MLFLOW_TRACKING_URI; a cluster logs to its own.
        """
        return self.url("mlflow") if self.cluster else self.given_store or self.local_store

    def environment(self) -> dict[str, str]:
        """Return the environment of every service: no telemetry, own folders, this Python first.

        It names the files that hold secrets, not the secrets.
        """
        own = {
            "PREFECT_HOME": str(self.prefect_home),
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "PREFECT_SERVER_API_HOST": HOST,
            "PREFECT_SERVER_API_PORT": str(self.port("prefect")),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            **LOOPS,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves seven idle processes
            "DVC_NO_ANALYTICS": "true",
            "DO_NOT_TRACK": "true",  # MLflow does not understand `1`
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PATH": os.pathsep.join(
                [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
            ),
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(OWN_PREFIX) or name.startswith(KEPT_PREFIX)
        }
        if self.cluster or not self.given_store:
            own["DXAI_MLFLOW_URL"] = self.url(
                "mlflow"
            )  # for links, even if clients write to a file
        if "%" in str(self.root) and not self.cluster:
            database = addresses.sqlite(self.prefect_home / "prefect.db", "aiosqlite")
            own["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
        if self.cluster:
            own |= {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database("prefect", "asyncpg"),
                "RAY_ADDRESS": f"{HOST}:{self.port('ray-head')}",
                "RAY_AUTH_MODE": "token",
                # Otherwise Ray would look for the head at the machine's outer address.
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                # For `psql`, `pg_dump` and `mlflow gc`, by hand.
                "PGHOST": HOST,
                "PGPORT": str(self.port("postgres")),
                "PGUSER": credentials.USER,
                "MLFLOW_BACKEND_STORE_URI": self.database("mlflow", "psycopg"),
                "DXAI_REMOTE": f"s3://{BUCKET}/dvc",
                **credentials.environment(self.work),
            }
            inherited = {k: v for k, v in inherited.items() if not k.startswith("AWS_")}
        return inherited | addresses.direct_loopback(inherited) | own


@dataclass(frozen=True)
class Service:
    """A program that runs until it is stopped."""

    name: str
    """Name of its log and pid file, and of its entry in `infra.ports.PORTS` if it has a port."""
    command: Callable[[Stack], list[str]]
    healthy: Callable[[Stack], bool]
    """Whether it is ready for work; called repeatedly after a start."""
    needs: tuple[str, ...] = ()
    """Services that must be healthy before it starts."""
    outlives: tuple[str, ...] = ()
    """Services that depend on this very process; they stop before it is replaced."""
    prepare: Callable[[Stack], None] = lambda stack: None
    """Called before each start."""
    environment: Callable[[Stack], dict[str, str]] = Stack.environment
    user: Callable[[], str | None] = lambda: None
    """Returns the user it runs as, None for the current one."""
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL)
    """Signals that stop it, sent `grace` seconds apart until it ends."""
    grace: float = 15.0
    attempts: int = 1
    """How often to start it before it counts as failed."""


def run(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m ...` to its end in the environment of the services."""
    return subprocess.run(
        python_module(*arguments),
        cwd=stack.root,
        env=stack.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def running(stack: Stack, name: str) -> dict[str, int] | None:
    """Return `pid`, `port` and `log` (the offset of its log) of a running service, else None."""
    path = stack.pid_file(name)
    with suppress(FileNotFoundError), path.open() as file:
        try:
            # Shared: two readers must not take each other for the service.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            for _ in range(100):
                if text := file.read():
                    return json.loads(text)
                time.sleep(0.01)  # locked, and about to be written
            raise OSError(f"{path} is locked, but empty") from None
    return None


def group(stack: Stack, name: str) -> int | None:
    """Return the leader of a service's processes, even of its leftovers, else None."""
    if found := running(stack, name):
        return found["pid"]
    try:
        leader = json.loads(stack.pid_file(name).read_text())["pid"]
    except (OSError, ValueError):
        return None
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):  # it has just ended, or is another user's
            # The system may have reused the group's id.
            home = os.getsid(process.pid) == leader and process.environ().get("PREFECT_HOME")
            if home == str(stack.prefect_home):
                return leader
    return None


def start(stack: Stack, service: Service) -> subprocess.Popen[bytes] | None:
    """Start a service after ending leftovers of a killed one; None if it runs already.

    Raises `ServiceError` if its port is taken, or something it needs is not installed.
    """
    name = service.name
    if running(stack, name):
        return None
    stop(stack, service)
    port = stack.port(name) if name in PORTS else 0
    if port and listens(port):
        raise ServiceError(
            f"port {port} of the {name} server is taken by another program; "
            f"choose another port with {PORTS[name][0]}=..."
        )
    for folder in ("logs", "prefect", "mlflow-artifacts"):
        (stack.work / folder).mkdir(parents=True, exist_ok=True)
    if stack.cluster:
        credentials.create(stack.work, f"{HOST}:{stack.port('store')}")
    service.prepare(stack)
    user = service.user()
    command, environment = service.command(stack), service.environment(stack)
    with files.locked(stack.pid_file(name)) as file, stack.log(name).open("ab") as output:
        if file is None:  # another launcher was quicker
            return None
        log_start = output.tell()  # before the program can write to it
        file.truncate(0)
        process = subprocess.Popen(
            command,
            cwd=stack.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[file.fileno()],  # the lock lasts as long as the program
            start_new_session=True,
            **identity(user),
        )
        _note(file, process.pid, port, log_start)
    return process


def start_all(stack: Stack, services: Iterable[Service], started: list[str]) -> None:
    """Start services, each once those it needs are healthy; returns when all are healthy.

    Adds the names of those that did not run before to `started`. Raises `ServiceError`, with the
    last lines, if a service ends or does not become healthy in time.
    """
    waiting = {service.name: service for service in services}
    by_name = dict(waiting)
    attempts = {name: service.attempts for name, service in waiting.items()}
    since: dict[str, float] = {}
    reported = time.monotonic()
    while waiting:
        for name, service in list(waiting.items()):
            if any(need in waiting for need in service.needs):
                continue
            if name not in since:
                since[name] = time.monotonic()
                if not running(stack, name):
                    for other in service.outlives:
                        if other in by_name:
                            stop(stack, by_name[other])
                    started.append(name)  # before the start, which a signal may follow at once
                    if not start(stack, service):  # another launcher was quicker
                        started.remove(name)
            seconds = time.monotonic() - since[name]
            if service.healthy(stack):
                del waiting[name]
                if seconds > 1:
                    logger.info(f"{name}: ready after {seconds:.0f} s")
                continue
            if not running(stack, name):
                attempts[name] -= 1
                if attempts[name] > 0:
                    logger.info(f"{name} has ended; it is started again")
                    if name not in started:
                        started.append(name)
                    start(stack, service)
            check(stack, name)
            if seconds > START_TIMEOUT:
                lines = last_lines(stack, name)
                raise ServiceError(f"{name} is not ready after {seconds:.0f} s:\n{lines}")
        if waiting and time.monotonic() - reported > 5:
            reported = time.monotonic()
            ages = [f"{name} ({reported - since[name]:.0f} s)" for name in waiting if name in since]
            logger.info(f"starting: {', '.join(ages)}")
        time.sleep(0.2 if waiting else 0)


def stop(stack: Stack, service: Service) -> bool:
    """Stop a service and all its processes; False if none was running."""
    if (leader := group(stack, service.name)) is None:
        return False
    processes.end_group(leader, service.signals, service.grace)
    # Such as the lanes of a run whose process was killed.
    processes.end_group(leader, leader_of=os.getsid)
    stack.pid_file(service.name).unlink(missing_ok=True)
    return True


@contextmanager
def exclusive(stack: Stack, name: str) -> Iterator[None]:
    """Let only one command of this name run in the folder; else raise `ServiceError`."""
    with files.locked(stack.pid_file(name)) as file:
        if file is None:
            other = running(stack, name) or {"pid": 0}
            raise ServiceError(f"another {name} runs in this folder: process {other['pid']}")
        file.truncate(0)
        _note(file, os.getpid())
        yield


def _note(file: IO[str], pid: int, port: int = 0, log: int = 0) -> None:
    file.write(json.dumps({"pid": pid, "port": port, "log": log}))
    file.flush()


def identity(user: str | None) -> dict[str, Any]:
    """Return the `subprocess` arguments that run a program as another user, without groups."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def listens(port: int) -> bool:
    """Whether any program accepts connections at a port of this machine."""
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether a server answers a request with success."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def has_logged(stack: Stack, name: str, text: str) -> bool:
    """Whether a running service has logged a text since its start; a rotated log counts as such."""
    found = running(stack, name)
    if found is None:
        return False
    started = stack.pid_file(name).stat().st_mtime
    moved = log_files.rotated_since(stack.log(name), started)
    return moved or text in _read_log(stack, name, found["log"])


def check(stack: Stack, name: str) -> None:
    """Raise `ServiceError`, with the last lines, if a service has ended."""
    if group(stack, name) is None:
        raise ServiceError(f"{name} has ended:\n{last_lines(stack, name)}")


def last_lines(stack: Stack, name: str) -> str:
    text = _read_log(stack, name)
    return "\n".join([*text.splitlines()[-15:], f"(the whole log: {stack.log(name)})"])


def _read_log(stack: Stack, name: str, start: int = 0) -> str:
    try:
        return stack.log(name).read_bytes()[start:].decode(errors="replace")
    except FileNotFoundError:
        return ""
