"""Progress of a long loop as plain lines, readable in a terminal and in a log file."""

from __future__ import annotations

import re
import time

_BAR = re.compile(r" \[#{0,20} {0,20}\] (\d+)/(\d+) ")


def clock(seconds: float) -> str:
    """Format seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def share(line: str) -> float | None:
    """Read the completed fraction, 0 to 1, from a line of `Progress`; None for any other line."""
    found = _BAR.search(line)
    return min(1.0, int(found[1]) / max(int(found[2]), 1)) if found else None


class Progress:
    """Print the progress of a loop, its speed and the time left.

    `start` is the number of steps a resumed run has already done, `every` the least seconds between
    two lines; the last step always gets one.
    """

    def __init__(
        self, title: str, total: int, start: int = 0, unit: str = "steps", every: float = 5.0
    ) -> None:
        self.title, self.total, self.unit, self.every = title, total, unit, every
        self.done, self.start = start, start
        self.began = self.printed = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the loop started."""
        return time.monotonic() - self.began

    def rate(self, done: int) -> float:
        """Steps per second since the loop started."""
        return (done - self.start) / max(self.seconds, 1e-9)

    def update(self, done: int, note: str = "") -> None:
        """Report that `done` steps are complete; prints at most once every `every` seconds."""
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
            flush=True,
        )
