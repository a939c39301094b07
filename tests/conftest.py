"""Settings for all tests: quiet, single-threaded programs, and the handling of missing ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports torch, mlflow or prefect; subprocesses inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "true"
os.environ["DVC_NO_ANALYTICS"] = "true"
for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME"):
    os.environ.pop(variable, None)  # never write to a developer's own servers
# A shell's `&` makes a process and its children ignore Ctrl-C, which tests use to stop programs.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = {
    "test_benchmark.py": "finished",
    "test_by_hand.py": "finished",
    "test_training.py": "finished",
    "test_cluster.py": "cluster",
    "test_faults.py": "cluster",
    "test_operating.py": "cluster",
}
"""Files of tests/integration that share a fixture that takes minutes to make, and its name."""


SECONDS = {
    "finished": 600,
    "cluster": 600,
    "test_survival.py": 240,
    "test_site.py": 150,
    "test_fuzz.py": 180,
    "test_containers.py": 120,
    "test_own_network.py": 120,
    "test_s3.py": 120,
    "test_reproduce.py": 120,
    "test_storage.py": 100,
    "test_supervisor.py": 100,
    "test_live.py": 60,
    "test_preparing.py": 60,
    "test_distributed.py": 60,
}
"""What the longest take on a quiet machine, roughly; they come first, so workers end together."""


def group_of(path: Path) -> str:
    """Return the name of what a file of tests shares with others, or the file's."""
    return SHARED.get(path.name, path.name)


@pytest.fixture(autouse=True)
def _import_path() -> Iterator[None]:
    """Leave no folder of a test on Python's path, where a user's network puts it."""
    before = list(sys.path)
    yield
    sys.path[:] = before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest groups first, each in its own order."""
    items.sort(key=lambda item: -SECONDS.get(group_of(item.path), 0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, keep tests of one file, and of files that share a long fixture, together."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return SHARED.get(Path(file).name, file)

    return Together(config, log)


def require_program(name: str) -> str:
    """Return the path of a program; without it skip the test, or fail it if CI=true.

    Parameters
    ----------
    name : str
        The command, for example ``"chromium"``.
    """
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed; .ci/run installs what tests need")
        pytest.skip(f"{name} is not installed")
    return path


Mount = Callable[..., Path | None]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount file systems of a given size in new folders; None where that is not permitted."""
    mounted: list[Path] = []

    def make(size: str, folder: Path | None = None, *options: str) -> Path | None:
        folder = folder or tmp_path / f"disk-{len(mounted)}"
        folder.mkdir(exist_ok=True)
        chosen = ",".join([f"size={size}", *options])
        command = ["mount", "-t", "tmpfs", "-o", chosen, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            return None
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
