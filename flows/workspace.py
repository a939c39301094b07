"""One run at a time in a folder: what DVC keeps there has one owner."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(".work/run.lock")
LOOK_EVERY = 1.0
"""Seconds between two looks whether the other one has ended."""


@contextmanager
def alone(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder; whoever comes later waits, and says for whom.

    The system frees the lock when its holder ends, however that happens.
    """
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a+") as file:
        told = ""
        while not _locked(file.fileno()):
            file.seek(0)
            if (other := file.read() or "another run") != told:
                told = other
                say(f"waiting until {other} has ended, which runs in this folder")
            time.sleep(LOOK_EVERY)
        file.truncate(0)
        file.write(name)
        file.flush()
        yield
        file.truncate(0)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
