"""End other programs, together with all their child processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""Signals sent in this order, each only if the one before was not enough."""


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def members(leader: int, leader_of: Callable[[int], int]) -> list[int]:
    """List the running processes whose `os.getpgid` (or `os.getsid`) is `leader`."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if leader_of(pid) == leader and is_running(pid):
                found.append(pid)
    return found


def end_group(
    leader: int,
    signals: Sequence[signal.Signals] = SIGNALS,
    grace: float = 5.0,
    spared: int | None = None,
    leader_of: Callable[[int], int] = os.getpgid,
) -> None:
    """End a process group, whose leader may have ended; returns when it is gone.

    The signals are sent `grace` seconds apart, as long as any process is left but `spared`. With
    `os.getsid` it is a session, whose processes may have groups of their own.
    """
    for signum in signals:
        deadline, told = time.monotonic() + grace, {spared}
        while left := set(members(leader, leader_of)) - {spared}:
            for pid in left - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            told |= left
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return


def end_session(leader: int) -> None:
    """Kill every process of a session, whose leader may have ended; returns when all are gone."""
    while found := members(leader, os.getsid):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
