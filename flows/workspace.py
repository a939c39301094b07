"""One run at a time in a folder: what DVC keeps there has one owner."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dxai.files import held

LOCK = Path(".work/run.lock")
LOOK_EVERY = 1.0
"""Seconds between two looks whether the other one has ended."""


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
