"""Two runs competing for one folder, each in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import workspace
from flows.workspace import NoRoom, check_room
from tests.conftest import Mount

ROOT = Path(__file__).resolve().parents[3]
RUN = """
import sys, time
from flows import workspace
workspace.POLL_SECONDS = 0.05
with workspace.exclusive("run " + sys.argv[1], lambda text: print(text, flush=True)):
    print("in", flush=True)
    sys.stdin.read()
print("out", flush=True)
"""
Run = subprocess.Popen[str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Run]]:
    begun: list[Run] = []

    def run(name: str) -> Run:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, name],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def says(process: Run) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("end", ["itself", "killed"])
def test_the_second_waits_and_names_the_first(start: Callable[[str], Run], end: str) -> None:
    first = start("amber")
    assert says(first) == "in"
    second = start("blue")
    assert says(second) == "waiting until run amber, which uses this folder, has ended"
    time.sleep(0.3)
    if end == "itself":
        first.communicate()
    else:
        first.send_signal(signal.SIGKILL)
    assert says(second) == "in"
    third = start("coral")
    assert "run blue" in says(third)


def test_a_folder_with_room_is_made_and_left_empty(tmp_path: Path) -> None:
    check_room([tmp_path / "deep/new", tmp_path])
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "new"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, mount: Mount) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoRoom, match=r"file/in cannot be written to: Not a directory"):
        check_room([tmp_path, tmp_path / "file/in"])
    if read_only := mount("1m", None, "ro"):
        with pytest.raises(NoRoom, match=f"{read_only} cannot be written to: Read-only"):
            check_room([read_only])


def test_a_disk_that_is_nearly_full_is_named(
    tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small := mount("2m"):
        with pytest.raises(NoRoom, match=f"{small} has 2 MiB free; a run needs 256 or more"):
            check_room([tmp_path, small])
    monkeypatch.setattr(workspace, "MIN_FREE", 1 << 60)
    with pytest.raises(NoRoom, match=f"{tmp_path} has .* MiB free"):
        check_room([tmp_path])
