"""What all tests share: quiet, single-threaded programs, and how a missing one is treated."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
# Before anything imports torch, mlflow or prefect; subprocesses inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "true"
os.environ["DVC_NO_ANALYTICS"] = "true"
for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME"):
    os.environ.pop(variable, None)  # a developer's own servers are not ours to write to
# Started with `&` we would ignore Ctrl-C, and so would every program that a test stops with it.
signal.signal(signal.SIGINT, signal.default_int_handler)


SHARED = {"test_benchmark.py", "test_by_hand.py", "test_training.py"}
"""Files of tests/integration that go on from one finished project, which takes minutes to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n`, tests of one file, and of files that share something long, stay together."""
    for item in items:
        name = "finished" if item.path.name in SHARED else item.path.relative_to(ROOT).as_posix()
        item.add_marker(pytest.mark.xdist_group(name))


def require_program(name: str) -> str:
    """Path of a program; without it the test is skipped, or fails where CI=true.

    Parameters
    ----------
    name : str
        As on the command line, for example ``"chromium"``.
    """
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed; .ci/run installs what tests need")
        pytest.skip(f"{name} is not installed")
    return path
