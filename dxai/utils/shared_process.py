"""A program that several processes use, alive as long as the one that needs it for longest.

That one holds a line (a named pipe); whoever uses the program first starts it, with the line as its
standard input. When the holder ends, even if it is killed, the program finds its input at an end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from dxai.utils import processes

LINE, LOCK, LOG, PID, SAID = "line", "lock", "log", "pid", "said"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the line; what was started on it has ended when the block has."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.mkfifo(folder / LINE)
    line = os.open(folder / LINE, os.O_RDWR)  # one end alone would wait for the other
    try:
        yield
    finally:
        os.close(line)
        if (pid := _pid(folder)) is not None:
            processes.end_session(pid)


def use(folder: Path, command: Sequence[str], environment: dict[str, str]) -> str:
    """The first line that the program says, started unless it runs.

    Parameters
    ----------
    folder : Path
        That of `hold`.
    command : sequence of str
        The program; it must print a line when it is ready, and end with its standard input.
    environment : dict
        Its environment.

    Raises
    ------
    ChildProcessError
        If it ends without saying anything.
    """
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _runs(folder):
            _start(folder, command, environment)
        return (folder / SAID).read_text().strip()


def _start(folder: Path, command: Sequence[str], environment: dict[str, str]) -> None:
    (folder / SAID).unlink(missing_ok=True)
    with (folder / LINE).open("rb") as line, (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=line,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    (folder / PID).write_text(str(process.pid))
    assert process.stdout is not None
    said = process.stdout.readline()
    if not said:
        processes.end_session(process.pid, process.poll)
        raise ChildProcessError(f"{command[-1]} did not start; see {folder / LOG}")
    (folder / SAID).write_text(said)


def _pid(folder: Path) -> int | None:
    try:
        return int((folder / PID).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _runs(folder: Path) -> bool:
    pid = _pid(folder)
    if pid is None or not (folder / SAID).exists():
        return False
    with contextlib.suppress(ChildProcessError):  # started by another process
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
