"""Rotate the services' logs, which run for months.

A service writes to the file that it got at its start, so the file stays, and its content is moved.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dxai.utils.files import atomic

LARGEST = 20 << 20
"""Bytes of a log from which its content is moved to `<name>.log.1`."""
KEPT = 3
"""Older parts kept, the oldest with the largest number."""


def rotate(folder: Path, largest: int = LARGEST) -> None:
    """Move the content of each log that is too large; lines written meanwhile may be lost."""
    for log in folder.glob("*.log"):
        if log.stat().st_size <= largest:
            continue
        for number in range(KEPT, 1, -1):
            if part(log, number - 1).exists():
                part(log, number - 1).replace(part(log, number))
        with atomic(part(log, 1)) as temporary:
            shutil.copyfile(log, temporary)
        os.truncate(log, 0)  # services append, so none writes at its old offset


def part(log: Path, number: int) -> Path:
    """Return the path of an older part of a log."""
    return log.with_name(f"{log.name}.{number}")


def rotated_since(log: Path, seconds: float) -> bool:
    """Whether a log was rotated after a time, in seconds since the epoch."""
    newest = part(log, 1)
    return newest.exists() and newest.stat().st_mtime > seconds
