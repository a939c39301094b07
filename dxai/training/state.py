"""Where training runs, its unfinished state on disk, and stopping without losing it."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from dxai.models.checkpoint import write_tensors


def best_device() -> torch.device:
    """The accelerator, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Checkpoint:
    """The working checkpoint of one training: whole or absent, and only ever of the same settings.

    Parameters
    ----------
    folder : Path
        Belongs to this training alone; its name should carry a digest of all that decides the
        result, so that a run with other settings never continues from it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "last.pt"

    def load(self) -> dict[str, Any] | None:
        """What was saved last, or None."""
        if not self.path.is_file():
            return None
        return torch.load(self.path, map_location="cpu", weights_only=True)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        write_tensors(self.path, state)

    def remove(self) -> None:
        """Delete it, once the result stands."""
        shutil.rmtree(self.folder, ignore_errors=True)


class StopRequest:
    """Turns SIGINT and SIGTERM into a request that a loop answers between two steps.

    Inside the `with` block the first signal only sets `pending`; `answer` then ends the program
    the way the signal would have. A second signal ends it at once.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.pending is not None:
            raise KeyboardInterrupt
        self.pending = number

    def answer(self) -> None:
        """Raise what the pending signal stands for."""
        if self.pending == signal.SIGINT:
            raise KeyboardInterrupt
        if self.pending is not None:
            raise SystemExit(128 + self.pending)
