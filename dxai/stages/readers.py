"""Units of a dataset read on Ray: an executor for `dxai.datasets.parallel_reader`.

Ray's driver dies with its cluster, so it runs in a process of its own, `dxai.stages.ray_readers`.
Batches of units go there and readings come back through a pipe; the stage writes them in order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from dxai.config.schema import EvaluationParams
from dxai.datasets.parallel_reader import Reader, Readers
from dxai.training.runtime.supervisor import last_line, ray_address, start_driver
from dxai.utils import processes

DRIVER = "from dxai.stages.ray_readers import main; main()"


class RayReaders(Readers):
    """Reads batches of units by tasks of a cluster, which it joins or starts.

    Parameters
    ----------
    reader : Reader
        Is sent to every node once; the source must be within reach of all.
    params : EvaluationParams
        `workers` tasks run at once, if the cluster has a core for each.
    log : Path
        Gets what Ray prints.
    """

    def __init__(self, reader: Reader, params: EvaluationParams, log: Path) -> None:
        self.workers, self.log, self._sent = params.workers, log, 0
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self.process, self.link = start_driver(DRIVER, log)
        self.link.send((reader, params.workers, ray_address(), os.getcwd()))
        threading.Thread(target=self._receive, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Read a batch of units, the argument; `fn` is what does so in a process here."""
        found: Future[Any] = Future()
        with self._lock:
            self._sent += 1
            self._waiting[self._sent] = found
        try:
            self.link.send((self._sent, *args))
        except OSError:  # `_receive` tells the same
            self._break()
        return found

    def _receive(self) -> None:
        """Pass on what the driver sends, until it ends."""
        try:
            while True:
                number, answer = self.link.recv()
                with self._lock:
                    found = self._waiting.pop(number)
                if isinstance(answer, BaseException):
                    found.set_exception(answer)
                else:
                    found.set_result(answer)
        except (EOFError, OSError):
            self._break()

    def _break(self) -> None:
        text = f"Ray ended: {last_line(self.log)} (full log: {self.log})"
        with self._lock:
            while self._waiting:
                self._waiting.popitem()[1].set_exception(BrokenProcessPool(text))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the driver, and with it a cluster that it started."""
        processes.end_session(self.process.pid)
        self.process.wait()
        self.link.close()
