"""The driver and the tasks that read units on Ray; see `dxai.stages.readers`."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray.exceptions import RayTaskError

from dxai.datasets.base import Unit
from dxai.datasets.parallel_reader import Reader, Reading
from dxai.training.runtime.ray_driver import connect
from dxai.training.runtime.supervisor import LINK

POLL = 0.1
"""Seconds to wait for a task before looking for further batches."""


@ray.remote(num_cpus=1)
def read(reader: Reader, folder: str, units: list[Unit]) -> list[Reading]:
    if os.path.isdir(folder):  # a source may be named by a relative path
        os.chdir(folder)
    return [reader.read(unit) for unit in units]


def main() -> None:
    """Read what the stage sends over the pipe, until it closes that."""
    link = Connection(int(os.environ[LINK]))
    reader, workers, address, folder = link.recv()
    connect(address, workers)
    kept = ray.put(reader)
    pending: dict[Any, int] = {}
    try:
        while True:
            while link.poll(0 if pending else None):
                number, units = link.recv()
                pending[read.remote(kept, folder, units)] = number
            ready, _ = ray.wait(list(pending), timeout=POLL)
            for reference in ready:
                link.send((pending.pop(reference), _answer(reference)))
    except (EOFError, BrokenPipeError):
        pass


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        return error.cause
