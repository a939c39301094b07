"""Process groups, really started and ended."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from dxai.processes import end_group, group_alive


def start(code: str) -> subprocess.Popen[str]:
    """Python code in a group of its own, once it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


IGNORE = "import signal, time\nfor s in ({}): signal.signal(s, signal.SIG_IGN)\n"
WAIT = "print('ready', flush=True); time.sleep(600)"


@pytest.mark.parametrize(
    ("ignored", "code"),
    [("", -2), ("signal.SIGINT,", -15), ("signal.SIGINT, signal.SIGTERM,", -9)],
)
def test_each_signal_is_tried_in_turn(ignored: str, code: int) -> None:
    with start(IGNORE.format(ignored) + WAIT) as process:
        end_group(process.pid, grace=1.0, poll=process.poll)
        assert process.returncode == code or (code == -2 and process.returncode == 1)
    assert not group_alive(process.pid)


def test_children_end_with_their_parent() -> None:
    parent = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '600'])\n" + WAIT
    with start(parent) as process:
        end_group(process.pid, poll=process.poll)
    assert not group_alive(process.pid)


def test_an_ended_group_costs_no_time() -> None:
    with start("print('ready')") as process:
        process.wait()
    began = time.monotonic()
    end_group(process.pid, poll=process.poll)
    assert time.monotonic() - began < 1
