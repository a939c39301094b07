"""What the runs of a project share: the cores of the machine, and the items themselves.

Both are files that a lane keeps locked, so the system frees them when their holder ends.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from dxai.utils.files import locked

POLL_SECONDS = 0.2
TOLD_SECONDS = 5.0
"""How long nothing is said of waiting."""
GATE = "gate"
Ended = Callable[[], bool]
Log = Callable[[str], None]


@contextmanager
def turn(path: Path, name: str, log: Log, ended: Ended = lambda: False) -> Iterator[None]:
    """Keep a file locked during the block, after others' turns; do not wait if `ended`.

    `name` is that of the run; `log` is told of another one that is waited for.
    """
    waiting = _Waiting(name, log)
    while not ended():
        with locked(path) as file:
            if file is not None:
                _sign(file, name)
                yield
                return
        waiting.tell([path], path.name)
        time.sleep(POLL_SECONDS)
    yield


@contextmanager
def cores(
    folder: Path, count: int, total: int, name: str, log: Log, ended: Ended = lambda: False
) -> Iterator[None]:
    """Hold `count` of `total` cores during the block; wait for them, or until `ended`.

    One at a time waits for cores, so nobody holds some and waits for others' for ever.
    """
    files = [folder / str(k) for k in range(total)]
    waiting = _Waiting(name, log)
    with ExitStack() as held:
        with turn(folder / GATE, name, lambda _: None, ended):
            taken = set[Path]()
            while not ended():
                for path in files:
                    if path not in taken and len(taken) < count and _take(path, name, held):
                        taken.add(path)
                if len(taken) == count:
                    break
                waiting.tell(files, "a core")
                time.sleep(POLL_SECONDS)
        yield


def _take(path: Path, name: str, held: ExitStack) -> bool:
    with ExitStack() as own:
        if (file := own.enter_context(locked(path))) is None:
            return False
        _sign(file, name)
        held.push(own.pop_all())
        return True


def _sign(file: IO[str], name: str) -> None:
    file.truncate(0)
    file.write(name)
    file.flush()


class _Waiting:
    """Says once, after some seconds, whom a run waits for."""

    def __init__(self, name: str, log: Log) -> None:
        self.name, self.log = name, log
        self.since: float | None = time.monotonic()

    def tell(self, files: list[Path], what: str) -> None:
        if self.since is None or time.monotonic() - self.since < TOLD_SECONDS:
            return
        others = {file.read_text() for file in files if file.exists()} - {"", self.name}
        if others:
            self.since = None
            self.log(f"waiting until {', '.join(sorted(others))} leaves {what}")
