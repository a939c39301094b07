"""A run's folder: one run at a time, since what DVC keeps there has one owner, and room in it."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dxai.utils.files import held

LOCK = Path(".work/run.lock")
LOOK_EVERY = 1.0
"""Seconds between two looks whether the other one has ended."""
WRITTEN = (".work", ".dvc/tmp", "data/prepared", "artifacts", "results", tempfile.gettempdir())
"""Folders that a run writes to, beside DVC's cache."""
ROOM = 256 << 20
"""Bytes that have to be free in each: more than profile `smoke` makes."""


class NoRoom(OSError):
    """A folder that cannot be written to, found before anything was computed for it."""


@contextmanager
def alone(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder; whoever comes later waits, and says for whom."""
    told = ""
    while True:
        with held(LOCK) as file:
            if file is not None:
                file.truncate(0)
                file.write(name)
                file.flush()
                yield
                file.truncate(0)
                return
        if (other := LOCK.read_text() or "another run") != told:
            told = other
            say(f"waiting until {other} has ended, which runs in this folder")
        time.sleep(LOOK_EVERY)


def check_room(folders: Iterable[Path | str]) -> None:
    """Raise `NoRoom`, naming the folder, unless each can be written to and has some room."""
    for folder in folders:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
        except OSError as error:
            raise NoRoom(f"{folder} cannot be written to: {error.strerror}") from None
        if (free := shutil.disk_usage(folder).free) < ROOM:
            raise NoRoom(f"{folder} has {free >> 20} MiB free; a run needs {ROOM >> 20} or more")
