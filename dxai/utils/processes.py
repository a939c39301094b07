"""End other programs, together with everything that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""Sent in this order, each only if the one before was not enough."""


def group_alive(leader: int) -> bool:
    """Whether any process of the group that `leader` leads still runs."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def end_group(
    leader: int,
    signals: Sequence[signal.Signals] = SIGNALS,
    grace: float = 5.0,
    poll: Callable[[], object] = lambda: None,
) -> None:
    """End a process group; returns when it is gone.

    Parameters
    ----------
    leader : int
        Process id of the group's leader, which is the group's id.
    signals : sequence of Signals
        Sent one after the other, as long as any process is left.
    grace : float
        Seconds after each signal.
    poll : callable
        `Popen.poll` of a leader that is a child of this process: an ended child counts as alive
        until it is polled.
    """
    for signum in signals:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signum)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            poll()
            if not group_alive(leader):
                return
            time.sleep(0.05)


def end_session(leader: int, poll: Callable[[], object] = lambda: None) -> None:
    """Kill every process group of the session that `leader` leads; returns when all are gone.

    Parameters
    ----------
    leader : int
        A process that was started with `start_new_session`; it may have ended.
    poll : callable
        As for `end_group`.
    """
    while found := session(leader):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        poll()


def session(leader: int) -> list[int]:
    """List the processes of a session that have not ended."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == leader and is_running(pid):
                found.append(pid)
    return found


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended; a zombie has."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
