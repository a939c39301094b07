"""PostgreSQL in a folder of the project, on loopback, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra import credentials, supervisor
from infra.supervisor import HOST, Place, ServiceError

DATABASES = ("prefect", "mlflow")
USERS = ("postgres", "nobody")
"""Whom it runs as if root starts it, which PostgreSQL itself refuses."""


def program(name: str, version: str = "*") -> str:
    """Path of a program of PostgreSQL; Debian keeps those of a server out of PATH.

    Of several major versions the newest, or the one that is asked for, where it is there.

    Raises
    ------
    ServiceError
        If it is not installed.
    """
    places = Path("/usr/lib/postgresql")
    for wanted in (version, "*"):
        if found := sorted(places.glob(f"{wanted}/bin/{name}"), key=_version):
            return str(found[-1])
    if (elsewhere := shutil.which(name)) is None:
        raise ServiceError(
            f"PostgreSQL is not installed: no program {name} in PATH or in /usr/lib/postgresql; "
            "`apt-get install postgresql`"
        )
    return elsewhere


def _version(path: Path) -> float:
    return float(path.parts[-3])


def user() -> str | None:
    """Whom it runs as; None is whoever starts it."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in USERS:
        if name in known:
            return name
    raise ServiceError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}"
    )


def folder(place: Place) -> Path:
    """Everything of it, which belongs to whom it runs as."""
    return place.work / "postgres"


def prepare(place: Place, say: Callable[[str], None]) -> None:
    """Make the databases, once.

    Raises
    ------
    ServiceError
        If PostgreSQL is missing, or may not enter the folder, or is not of the version that wrote
        it.
    """
    data = folder(place) / "data"
    if data.exists():
        _check_version(data)
        return
    say("postgres: making its databases")
    initdb, server, owner = program("initdb"), program("postgres"), user()
    folder(place).mkdir(parents=True, exist_ok=True)
    identity = supervisor.identity(owner)
    if owner is not None:
        shutil.chown(folder(place), owner)
        for parent in reversed(folder(place).parents):
            if not parent.stat().st_mode & 0o001:
                raise ServiceError(
                    f"PostgreSQL does not run as root, and {owner}, as whom it would, may not "
                    f"enter {parent}: `chmod o+x {parent}`, or use another folder or user"
                )
    folder(place).chmod(0o700)
    unfinished, password = folder(place) / "unfinished", folder(place) / "password"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        password.touch(0o600)
        password.write_text(credentials.database_password(place.work))
        if owner is not None:
            shutil.chown(password, owner)
        made = [initdb, "-D", str(unfinished), "-U", credentials.USER, "--pwfile", str(password)]
        made += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
        _run(made, "", identity)
    finally:
        password.unlink(missing_ok=True)
    orders = "".join(f"CREATE DATABASE {name};\n" for name in DATABASES)
    _run([server, "--single", "-D", str(unfinished), "postgres"], orders, identity)
    unfinished.rename(data)


def _check_version(data: Path) -> None:
    """Another major version cannot read the folder, and what it says of it is in a log."""
    wrote = _written_by(data)
    said = subprocess.run([program("postgres", wrote), "--version"], capture_output=True, text=True)
    if f" {wrote}." not in said.stdout:
        raise ServiceError(
            f"{data} was written by PostgreSQL {wrote}, but this is {said.stdout.strip()}; "
            f"`apt-get install postgresql-{wrote}`, or move {data.parent} away to begin anew"
        )


def _written_by(data: Path) -> str:
    """Its major version."""
    return (data / "PG_VERSION").read_text().strip()


def _run(command: list[str], words: str, identity: dict[str, Any]) -> None:
    done = subprocess.run(command, input=words, capture_output=True, text=True, cwd="/", **identity)
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise ServiceError(f"{command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")


def command(place: Place) -> list[str]:
    """How it is started."""
    settings = {
        "listen_addresses": HOST,
        "port": str(place.port("postgres")),
        "unix_socket_directories": "",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    data = folder(place) / "data"
    wrote = _written_by(data) if data.exists() else "*"
    return [program("postgres", wrote), "-D", str(data), *options]


def environment(place: Place) -> dict[str, str]:
    """What it needs, and what it is known by."""
    name, _, value = place.mark.partition("=")
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", name: value}


def healthy(place: Place) -> bool:
    """Whether it takes queries."""
    asked = [program("pg_isready"), "-q", "-h", HOST, "-p", str(place.port("postgres"))]
    return subprocess.run(asked, stdin=subprocess.DEVNULL).returncode == 0
