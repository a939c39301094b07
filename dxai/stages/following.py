"""A training's numbers live in MLflow: starting and ending the process that logs them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dxai.config.schema import TrainingParams

END_SECONDS = 30.0
"""How long the last numbers may take; the training itself waits for nothing."""


@contextlib.contextmanager
def followed(folder: Path, params: TrainingParams) -> Iterator[None]:
    """Log a training on Ray to MLflow while the block runs; a local one ends too soon."""
    if params.executor == "local":
        yield
        return
    process = _start(folder)
    outcome = "KILLED"
    try:
        yield
        outcome = "FINISHED"
    except Exception:
        outcome = "FAILED"
        raise
    finally:
        if _tell(process, outcome) < 0:  # somebody killed it: another one has the last word
            _tell(_start(folder), outcome)


def _tell(process: subprocess.Popen[str], outcome: str) -> int:
    """Say how the training ended, and wait for a while; returns the exit code."""
    try:
        process.communicate(outcome, timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return 0
    return process.returncode


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dxai.tracking.live", str(folder.absolute())],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is not meant for it
    )
