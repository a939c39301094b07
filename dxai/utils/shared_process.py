"""A program that several processes use, and that ends with the process that holds it.

The holder keeps a named pipe open; the first user starts the program with that pipe as its standard
input. When the holder ends, even by a kill, the program reads the end of its input.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock

from dxai.utils import processes

PIPE, LOCK, LOG, PID, FIRST_LINE = "pipe", "lock", "log", "pid", "first_line"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Let others start the program during the block; it has ended when this returns."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.mkfifo(folder / PIPE)
    pipe = os.open(folder / PIPE, os.O_RDWR)  # opening one end alone would wait for the other
    try:
        yield
    finally:
        os.close(pipe)
        if (pid := _pid(folder)) is not None:
            processes.end_session(pid)


def use(folder: Path, command: Sequence[str], environment: dict[str, str]) -> str:
    """Start the program unless it runs in the folder of `hold`; returns the first line it printed.

    It must print a line when it is ready, and end with its standard input. Raises
    `ChildProcessError` if it ends without printing anything.
    """
    with FileLock(folder / LOCK):
        pid, first_line = _pid(folder), folder / FIRST_LINE
        if pid is None or not first_line.exists() or not processes.is_running(pid):
            _start(folder, command, environment)
        return first_line.read_text().strip()


def _start(folder: Path, command: Sequence[str], environment: dict[str, str]) -> None:
    (folder / FIRST_LINE).unlink(missing_ok=True)
    # The next user may start it anew before anyone has read why it failed for the last.
    with (folder / PIPE).open("rb") as pipe, (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=pipe,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    (folder / PID).write_text(str(process.pid))
    assert process.stdout is not None
    first = process.stdout.readline()
    if not first:
        processes.end_session(process.pid)
        raise ChildProcessError(f"{command[-1]} did not start; see {folder / LOG}")
    (folder / FIRST_LINE).write_text(first)


def _pid(folder: Path) -> int | None:
    try:
        return int((folder / PID).read_text())
    except (FileNotFoundError, ValueError):
        return None
