"""A training as a stage runs it: resumed if interrupted, and logged live to MLflow."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dxai.config.schema import TrainingParams
from dxai.paths import HERE, MANIFEST, training_name
from dxai.training.jobs import Job
from dxai.training.runtime.supervisor import launch
from dxai.utils.files import digest, taking_turns

END_SECONDS = 30.0
"""Seconds that the last numbers get to reach MLflow; the training itself never waits for it."""


@contextlib.contextmanager
def trained(
    job: Job, title: str, data: Path, decisive: list[Any], params: TrainingParams
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Train, and delete the checkpoint after a block that ends without error.

    `decisive` are the values, each with a distinctive `repr`, that decide the result besides the
    dataset in the folder `data`: a checkpoint with other data or values is not resumed. Yields the
    job's final state, and the folder with its pictures and events.

    Another process that trains the same, for a `dvc repro` by hand or a run, is waited for. Then
    this one ends, as DVC's cache has the result.
    """
    fingerprint = digest([(data / MANIFEST).read_text(), *map(repr, decisive)])
    name = training_name(title, fingerprint)
    folder = HERE.training(name)
    with taking_turns(HERE.at_work / name, title) as other:
        if other and not folder.exists():
            # Not an error of the input: the flow tries again.
            sys.exit(f"{title}: process {other} has done it; run again, which restores its result")
        with logged_live(folder, params):
            state, checkpoint = launch(job, title, name, folder, params)
        yield state, folder
        checkpoint.remove()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def logged_live(folder: Path, params: TrainingParams) -> Iterator[None]:
    """Log a training on Ray to MLflow while the block runs; local ones are too short."""
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
        if _end(process, outcome) < 0:  # killed, so another one logs the outcome
            _end(_start(folder), outcome)


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dxai.tracking.live", str(folder.absolute())],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # keep Ctrl-C away from it
    )


def _end(process: subprocess.Popen[str], outcome: str) -> int:
    """Tell the logger how the training ended and wait a while; returns its exit code."""
    try:
        process.communicate(outcome, timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return 0
    return process.returncode
