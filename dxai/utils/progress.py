"""Progress of long work as plain lines, readable in a terminal and in a collected log alike."""

from __future__ import annotations

import re
import sys
import time
from typing import TextIO

_BAR = re.compile(r" \[#{0,20} {0,20}\] (\d+)/(\d+) ")


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def share(line: str) -> float | None:
    """How much is done according to a line of `Progress`, 0 to 1; None if it is another line."""
    found = _BAR.search(line)
    return min(1.0, int(found[1]) / max(int(found[2]), 1)) if found else None


class Progress:
    """Print how far a loop is, how fast it goes and how long it will still take.

    Parameters
    ----------
    title : str
        What is being done, for example ``"decompose textures resnet18"``.
    total : int
        How many steps there are.
    start : int
        Steps already done when the loop starts (a resumed run).
    unit : str
        What a step is called.
    every : float
        Seconds between two lines; the last step always gets its line.
    """

    def __init__(
        self,
        title: str,
        total: int,
        start: int = 0,
        unit: str = "steps",
        every: float = 5.0,
        stream: TextIO | None = None,
    ) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done, self.start = start, start
        self.stream = stream or sys.stdout
        self.began = self.printed = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the loop started."""
        return time.monotonic() - self.began

    def rate(self, done: int) -> float:
        """Steps per second since the loop started."""
        return (done - self.start) / max(self.seconds, 1e-9)

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` steps are complete; prints at most once every `every` seconds."""
        self.done = done
        now = time.monotonic()
        if done < self.total and now - self.printed < self.every:
            return
        self.printed = now
        rate = self.rate(done)
        left = clock((self.total - done) / rate) if rate > 0 else "?"
        bar = "#" * round(20 * done / max(self.total, 1))
        print(
            f"{self.title} [{bar:<20}] {done}/{self.total} {self.unit}, "
            f"{rate:.2f}/s, {left} left{', ' + note if note else ''}",
            file=self.stream,
            flush=True,
        )
