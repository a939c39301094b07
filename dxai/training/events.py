"""The events that a training emits, and requests to stop it."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from dxai.paths import EVENTS, PANELS, panel_name
from dxai.training.prometheus import Metrics
from dxai.utils import terminal
from dxai.utils.files import atomic
from dxai.utils.progress import Progress

RESENT = 10
"""Rows of the history that a resumed training emits again: a kill may have lost their events."""


class Stopped(Exception):
    """Raised by a training that was asked to stop, after it has saved."""


class EventSink:
    """An event sink; the base class ignores events.

    The kinds of events:

    - ``start``: `step` of `total`, `images` per step; emitted again after a restart;
    - ``step``: `done` steps and a `note` on progress; frequent, so that silence means a hang; also
      the `total` that is foreseen by now, if that changes;
    - ``row``: the `numbers` of the history, by name, at `step`;
    - ``panel``: an image, `png`, at `step`;
    - ``say``: a line of `text`.
    """

    def emit(self, kind: str, **content: Any) -> None:
        """Receive an event."""

    @property
    def stopping(self) -> bool:
        """Whether the training should save and raise `Stopped`."""
        return False


class Console(EventSink):
    """Print progress, and write panels and numbers to the training's folder.

    `title` starts each line. `folder` gets panels/step-000250.png and events.jsonl (a line per
    `start`, `row` and `panel`), `metrics` a Prometheus text file. `stop` tells whether to stop.
    """

    def __init__(
        self,
        title: str,
        folder: Path,
        stop: StopRequest | None = None,
        metrics: Path | None = None,
    ) -> None:
        self.title, self.folder, self.stop = title, folder, stop
        self.metrics = Metrics(metrics, title) if metrics else None
        self.last_event = time.monotonic()
        self._progress = Progress(title, 0)
        self._images = 0

    @property
    def stopping(self) -> bool:
        return self.stop is not None and self.stop.pending is not None

    def emit(self, kind: str, **content: Any) -> None:
        self.last_event = time.monotonic()
        if kind == "step":
            self._progress.total = content.get("total", self._progress.total)
        if self.metrics:
            self._measure(self.metrics, kind, content)
        if kind == "say":
            self._print(content["text"])
        elif kind == "start":
            step, total, self._images = content["step"], content["total"], content["images"]
            self._progress = Progress(self.title, total, step)
            if step:
                self._print(f"continuing from step {step}")
            self._log(kind, content)
        elif kind == "step":
            rate = self._progress.rate(content["done"]) * self._images
            with self._heard():
                self._progress.update(content["done"], f"{rate:.0f} images/s, {content['note']}")
        elif kind == "row":
            self._log(kind, content)
        elif kind == "panel":
            path = self.folder / PANELS / panel_name(content["step"])
            with atomic(path) as temporary:
                temporary.write_bytes(content["png"])
            self._print(f"panel of step {content['step']}: {path}")
            self._log(kind, {"step": content["step"], "path": str(path)})

    def _print(self, text: str) -> None:
        with self._heard():
            print(f"{self.title}: {text}", flush=True)

    @contextlib.contextmanager
    def _heard(self) -> Iterator[None]:
        """Turn output that nobody can read any more into a request to save and stop."""
        try:
            yield
        except OSError:
            if self.stop is None:
                raise
            terminal.quiet()
            self.stop.request(signal.SIGPIPE)

    def _measure(self, metrics: Metrics, kind: str, content: dict[str, Any]) -> None:
        if kind == "start":
            metrics.set(steps=content["total"], steps_done=content["step"])
            metrics.count_start()
        elif kind == "step":
            rate = self._progress.rate(content["done"]) * self._images
            metrics.set(
                steps=self._progress.total, steps_done=content["done"], images_per_second=rate
            )
        elif kind == "row":
            metrics.set_row(content["numbers"])
        over = kind == "step" and content["done"] >= self._progress.total
        with contextlib.suppress(OSError):  # a full disk must not end the training
            metrics.write(now=over or kind == "start")

    def _log(self, kind: str, content: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"kind": kind, "title": self.title, "time": time.time()} | content
        with (self.folder / EVENTS).open("a") as file:
            file.write(json.dumps(line) + "\n")


class StopRequest:
    """Turn SIGINT, SIGTERM and SIGHUP into a request that a training answers between two steps.

    In the `with` block the first signal only sets `pending`; `answer` then ends the program as the
    signal would have. A second signal ends it at once.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = terminal.handle((signal.SIGINT, *terminal.ENDS), self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.pending is not None:
            raise KeyboardInterrupt
        self.pending = number

    def request(self, number: int) -> None:
        """Ask for a stop as a signal would, unless one was asked for."""
        self.pending = self.pending or number

    def answer(self) -> None:
        """Raise the exception that corresponds to the pending signal, if any."""
        if self.pending == signal.SIGINT:
            raise KeyboardInterrupt
        if self.pending is not None:
            raise SystemExit(128 + self.pending)
