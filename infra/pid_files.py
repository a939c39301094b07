"""Which programs of ours run: files that a program keeps locked for as long as it lives.

Who finds such a file unlocked knows that the program is no more, whatever other program may have
its process id by now.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dxai.utils import files


class LockedError(RuntimeError):
    """A file that is locked but says nothing."""


def read(path: Path) -> dict[str, int] | None:
    """What the running program's file says (`pid`, `port`, `log`), None if none runs."""
    with suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            for _ in range(100):
                if text := file.read():
                    return json.loads(text)
                time.sleep(0.01)  # locked, and about to be written
            raise LockedError(f"{path} is locked, and empty") from None
    return None


@contextmanager
def hold(path: Path) -> Iterator[IO[str] | None]:
    """The locked file, emptied; None if somebody else has locked it.

    A program that is started with the file's descriptor keeps the lock after this ends.
    """
    with files.locked(path) as file:
        if file is not None:
            file.truncate(0)
        yield file


def write(file: IO[str], pid: int, port: int = 0, log: int = 0) -> None:
    """Say who holds the file, and where in its log it began."""
    file.write(json.dumps({"pid": pid, "port": port, "log": log}))
    file.flush()


def remains(path: Path, mark: str) -> int | None:
    """The id of a program that is no more, if its process group still has members.

    Parameters
    ----------
    path : Path
        The program's file.
    mark : str
        `NAME=value` in the environment of what it started: the id may be somebody else's by now.
        Where the system does not show that (no /proc), nothing is found.
    """
    try:
        leader = json.loads(path.read_text())["pid"]
    except (OSError, ValueError):
        return None
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended just now, or somebody else's
            group = int(stat.read_text().rpartition(")")[2].split()[2])
            environment = (stat.parent / "environ").read_bytes() if group == leader else b""
            if mark.encode() in environment.split(b"\0"):
                return leader
    return None
