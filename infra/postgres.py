"""PostgreSQL in a folder of the project, on loopback, with a password."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from infra import credentials, supervisor
from infra.ports import HOST
from infra.supervisor import ServiceError, Stack

DATABASES = ("prefect", "mlflow")
USERS = ("postgres", "nobody")
"""Users to run it as if root starts it (the first that exists): it refuses to run as root."""
logger = logging.getLogger(__name__)


def program(name: str, version: str = "*") -> str:
    """Return the path of one of PostgreSQL's programs; Debian keeps the server's out of PATH.

    Of several major versions, `version` is preferred, else the newest. Raises `ServiceError` if
    none is installed.
    """
    for wanted in (version, "*"):
        found = Path("/usr/lib/postgresql").glob(f"{wanted}/bin/{name}")
        if newest := max(found, key=lambda path: float(path.parts[-3]), default=None):
            return str(newest)
    if (path := shutil.which(name)) is None:
        raise ServiceError(
            f"PostgreSQL is not installed: no program {name} in PATH or in /usr/lib/postgresql; "
            "`apt-get install postgresql`"
        )
    return path


def user() -> str | None:
    """Return the user to run it as; None for the current one."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    if found := next((name for name in USERS if name in known), None):
        return found
    raise ServiceError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}"
    )


def folder(stack: Stack) -> Path:
    """Return the folder of all its files, owned by the user that it runs as."""
    return stack.work / "postgres"


def prepare(stack: Stack) -> None:
    """Create the databases unless they exist; let a killed server have a successor.

    Raises `ServiceError` if PostgreSQL is not installed, cannot enter the folder, or is not of the
    version that wrote it.
    """
    home = folder(stack)
    data, unfinished, password = home / "data", home / "unfinished", home / "password"
    if data.exists():
        _check_version(data)
        forget_zombie(data / "postmaster.pid")
        return
    logger.info("postgres: creating its databases")
    initdb, server, owner = program("initdb"), program("postgres"), user()
    home.mkdir(parents=True, exist_ok=True)
    if owner is not None:
        shutil.chown(home, owner)
        for parent in reversed(home.parents):
            if not parent.stat().st_mode & 0o001:
                raise ServiceError(
                    f"PostgreSQL does not run as root, and the user it would run as, {owner}, may "
                    f"not enter {parent}: `chmod o+x {parent}`, or use another folder or user"
                )
    home.chmod(0o700)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        password.touch(0o600)
        password.write_text(credentials.database_password(stack.work))
        if owner is not None:
            shutil.chown(password, owner)
        options = ["-U", credentials.USER, "--pwfile", str(password), "--auth=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C.UTF-8"]
        _run([initdb, "-D", str(unfinished), *options], "", owner)
    finally:
        password.unlink(missing_ok=True)
    queries = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
    _run([server, "--single", "-D", str(unfinished), "postgres"], queries, owner)
    unfinished.rename(data)


def _check_version(data: Path) -> None:
    """Raise `ServiceError` if another major version wrote the folder; the server only logs that."""
    wrote = _written_by(data)
    version = [program("postgres", wrote), "--version"]
    installed = subprocess.run(version, capture_output=True, text=True).stdout.strip()
    if f" {wrote}." not in installed:
        raise ServiceError(
            f"{data} was written by PostgreSQL {wrote}, but this is {installed}; "
            f"`apt-get install postgresql-{wrote}`, or move {data.parent} away to start afresh"
        )


def forget_zombie(lock: Path) -> None:
    """Remove a killed server's lock file if its process is a zombie.

    PostgreSQL takes it for a running server, and would not start until the zombie's parent, often
    the first process of a container, collects it. What its children may still use it finds itself.
    """
    # Of a lock file that is empty or damaged PostgreSQL says so itself.
    with suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
        written = lock.read_text()
        zombie = psutil.Process(int(written.split()[0])).status() == psutil.STATUS_ZOMBIE
        if zombie and lock.read_text() == written:  # not a server's that has just been started
            logger.info("postgres: the last server was killed")
            lock.unlink()


def _written_by(data: Path) -> str:
    return (data / "PG_VERSION").read_text().strip()


def _run(command: list[str], stdin: str, owner: str | None) -> None:
    identity: dict[str, Any] = supervisor.identity(owner)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd="/", **identity)
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise ServiceError(f"{command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")


def command(stack: Stack) -> list[str]:
    data = folder(stack) / "data"
    server = program("postgres", _written_by(data) if data.exists() else "*")
    options = ["-c", f"listen_addresses={HOST}", "-c", f"port={stack.port('postgres')}"]
    return [server, "-D", str(data), *options, "-c", "unix_socket_directories="]


def environment(stack: Stack) -> dict[str, str]:
    """Return its environment, with the variable by which its processes are recognised."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LANG": "C.UTF-8", "PREFECT_HOME": str(stack.prefect_home)}


def healthy(stack: Stack) -> bool:
    """Whether it accepts queries."""
    ready = [program("pg_isready"), "-q", "-h", HOST, "-p", str(stack.port("postgres"))]
    return subprocess.run(ready, stdin=subprocess.DEVNULL).returncode == 0
