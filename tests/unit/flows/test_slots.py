"""Runs that share cores and items, each in its own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import slots

ROOT = Path(__file__).resolve().parents[3]
RUN = """
import sys
from pathlib import Path
from flows import slots
slots.POLL_SECONDS, slots.TOLD_SECONDS = 0.02, 0.0
name, count = sys.argv[1], int(sys.argv[2])
say = lambda text: print(text, flush=True)
with slots.turn(Path("turns/item"), name, say) if not count else slots.cores(
    Path("slots"), count, 3, name, say
):
    say("in")
    sys.stdin.read()
"""
Run = subprocess.Popen[str]
Start = Callable[[str, int], Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun: list[Run] = []

    def run(name: str, count: int) -> Run:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, name, str(count)],
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
def test_the_second_waits_for_its_turn_and_names_the_first(start: Start, end: str) -> None:
    first = start("amber", 0)
    assert says(first) == "in"
    second = start("blue", 0)
    assert says(second) == "waiting until amber leaves item"
    if end == "itself":
        first.communicate()
    else:
        first.send_signal(signal.SIGKILL)
    assert says(second) == "in"


def test_all_together_hold_no_more_cores_than_there_are(start: Start) -> None:
    first, second = start("amber", 1), start("blue", 2)
    assert says(first) == says(second) == "in"
    third = start("coral", 3)
    assert says(third) == "waiting until amber, blue leaves a core"
    fourth = start("denim", 1)  # it has to wait behind the third, which would wait for ever
    first.communicate()
    time.sleep(0.3)
    second.communicate()
    assert says(third) == "in"
    assert fourth.poll() is None
    third.communicate()
    while says(fourth) != "in":  # it may say whom it waits for
        pass


def test_who_is_stopped_waits_no_longer(tmp_path: Path) -> None:
    with slots.cores(tmp_path, 2, 2, "amber", print):
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        with slots.cores(tmp_path, 1, 2, "blue", print, stop.is_set):
            assert 0.2 < time.monotonic() - began < 5
