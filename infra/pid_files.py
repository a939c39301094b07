"""Files that a service keeps locked while it runs, with its process id, port and start in its log.

A file that is not locked belongs to a service that has ended, even if another program has been
given its process id since.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil


def read(path: Path) -> dict[str, int] | None:
    """Return `pid`, `port` and `log` (bytes before this start) of a running service, else None."""
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


def write(file: IO[str], pid: int, port: int = 0, log: int = 0) -> None:
    """Fill a locked, empty file."""
    file.write(json.dumps({"pid": pid, "port": port, "log": log}))
    file.flush()


def orphaned_group(path: Path, prefect_home: Path) -> int | None:
    """Return the process group of a service that has ended, if processes of it are left.

    Parameters
    ----------
    path : Path
        The service's file.
    prefect_home : Path
        PREFECT_HOME of the processes: the system may have reused the group's id since.
    """
    try:
        leader = json.loads(path.read_text())["pid"]
    except (OSError, ValueError):
        return None
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):  # it has just ended, or is another user's
            own = os.getpgid(process.pid) == leader
            if own and process.environ().get("PREFECT_HOME") == str(prefect_home):
                return leader
    return None
