"""Ending other programs, together with everything that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
"""Ctrl-C, the request to end, the end: each is sent if the one before was not enough."""


def group_alive(leader: int) -> bool:
    """Whether any process of the group that `leader` leads still runs."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def end_group(
    leader: int,
    signals: Sequence[signal.Signals] = POLITE,
    grace: float = 5.0,
    poll: Callable[[], object] = lambda: None,
) -> None:
    """End a process group; returns when it is gone.

    Parameters
    ----------
    leader : int
        Process id of the group's leader, which is the group's id.
    signals : sequence of Signals
        What is sent, one after the other, as long as something is left.
    grace : float
        Seconds given to each signal.
    poll : callable
        `Popen.poll` of a leader that is our own child: until it is polled an ended child counts
        as alive.
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
    """Kill everything in the session that `leader` leads, in whatever groups; returns when gone.

    Parameters
    ----------
    leader : int
        A process that was started with `start_new_session`; it may have ended.
    poll : callable
        As for `end_group`.
    """
    if not Path("/proc/self/stat").exists():  # only the leader's own group can be told
        end_group(leader, [signal.SIGKILL], poll=poll)
        return
    while found := _session(leader):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        poll()


def _session(leader: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name, which may hold anything) state parent group session ..
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.append(int(path.parent.name))
    return found
