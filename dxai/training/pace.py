"""When a training logs, draws, saves and ends: after so many steps, or as its time passes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from dxai.config.schema import DecomposeParams

ROWS, PANELS, SAVE_SECONDS = 40, 6, 60.0
"""Of a training within a time: logged rows, panels, and seconds between two checkpoints."""


class Due(NamedTuple):
    """What is due after a step; after the last one everything is."""

    row: bool
    panel: bool
    checkpoint: bool
    last: bool


class Pace(Protocol):
    """The plan of a training. Steps, draws and averages never depend on it, only the end does."""

    @property
    def steps(self) -> int | None:
        """The number of all steps, if it is known."""

    def ahead(self, done: int, seconds: float) -> Iterable[int]:
        """Return the steps after `done` of them, which took so many seconds; some may be left."""

    def due(self, done: int, seconds: float) -> Due:
        """Say what is due after `done` steps and so many seconds; asked after each step."""

    def total(self, done: int, seconds: float) -> int:
        """Return the number of all steps as far as it can be foreseen."""


class BySteps:
    """As the settings say."""

    def __init__(self, params: DecomposeParams) -> None:
        self.steps = params.steps
        self._every = (params.log_every, params.panel_every, params.checkpoint_every)

    def ahead(self, done: int, seconds: float) -> Iterable[int]:
        return range(done, self.steps)

    def due(self, done: int, seconds: float) -> Due:
        last = done == self.steps
        row, panel, checkpoint = (last or done % every == 0 for every in self._every)
        return Due(row, panel, checkpoint, last)

    def total(self, done: int, seconds: float) -> int:
        return self.steps


class ByTime:
    """Train for so many seconds, those of an interrupted training included, of one process.

    No step begins that would end later if it took as long as the one before, but for the first
    `fewest` steps.
    """

    steps = None

    def __init__(self, seconds: float, fewest: int) -> None:
        self.seconds, self.fewest = seconds, fewest
        self._start = 0, 0.0
        self._before = 0.0

    def ahead(self, done: int, seconds: float) -> Iterable[int]:
        self._start, self._before = (done, seconds), seconds
        return itertools.count(done)

    def due(self, done: int, seconds: float) -> Due:
        before, self._before = self._before, seconds
        last = done >= self.fewest and seconds + (seconds - before) > self.seconds
        every = (self.seconds / ROWS, self.seconds / PANELS, SAVE_SECONDS)
        row, panel, checkpoint = (last or seconds // each > before // each for each in every)
        return Due(row, panel, checkpoint, last)

    def total(self, done: int, seconds: float) -> int:
        first, began = self._start
        rate = (done - first) / max(seconds - began, 1e-9)
        return max(self.fewest, done + max(0, round(rate * (self.seconds - seconds))))
