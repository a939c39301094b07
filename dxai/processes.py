"""Ending other programs, together with everything that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence

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
