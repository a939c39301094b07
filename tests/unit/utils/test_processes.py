"""Starting and ending real process groups."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from dxai.utils.processes import end_group, end_session


def start(code: str) -> subprocess.Popen[str]:
    """Start Python code in a group of its own, and wait until it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def groups(leader: int) -> dict[int, int]:
    """Running processes of a session or group, and their groups, according to `ps`."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "pid=,pgid=,sess=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return {int(r[0]): int(r[1]) for r in rows if str(leader) in r[1:3] and r[3][0] != "Z"}


IGNORE = "import signal, time\nfor s in ({}): signal.signal(s, signal.SIG_IGN)\n"
WAIT = "print('ready', flush=True); time.sleep(600)"


@pytest.mark.parametrize(
    ("ignored", "code"),
    [("", -2), ("signal.SIGINT,", -15), ("signal.SIGINT, signal.SIGTERM,", -9)],
)
def test_each_signal_is_tried_in_turn(ignored: str, code: int) -> None:
    with start(IGNORE.format(ignored) + WAIT) as process:
        end_group(process.pid, grace=1.0)
        process.wait(10)
        assert process.returncode == code or (code == -2 and process.returncode == 1)
    assert not groups(process.pid)


def test_children_end_with_their_parent() -> None:
    parent = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '600'])\n" + WAIT
    with start(parent) as process:
        end_group(process.pid)
        process.wait(10)
    assert not groups(process.pid)


def test_an_ended_group_costs_no_time() -> None:
    with start("print('ready')") as process:
        process.wait()
    began = time.monotonic()
    end_group(process.pid)
    assert time.monotonic() - began < 1


GRANDCHILDREN = """
import subprocess, sys
for ignored in ("", "trap '' TERM INT;"):
    # Each in a group of its own, with children in yet another.
    script = f"{ignored} sleep 600 & sleep 600"
    inner = f"import subprocess, time; subprocess.Popen(['sh', '-c', {script!r}], process_group=0);"
    subprocess.Popen([sys.executable, "-c", inner + "time.sleep(600)"], process_group=0)
"""


@pytest.mark.parametrize("leader", ["lives", "has ended"])
def test_a_session_ends_with_all_of_its_groups(leader: str) -> None:
    """It ends whichever signals its members ignore, and even if its leader has ended."""
    code = GRANDCHILDREN + ("import time; time.sleep(600)" if leader == "lives" else "")
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    if leader == "has ended":
        process.wait(60)
    deadline = time.monotonic() + 60
    while len(found := groups(process.pid)) < 8:  # 2 of Python, 2 shells, 4 that sleep
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert len(set(found.values())) >= 4
    end_session(process.pid)
    assert not groups(process.pid)
    process.wait(10)


def test_an_ended_session_costs_no_time() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    began = time.monotonic()
    end_session(process.pid)
    assert time.monotonic() - began < 1
