"""Output to a terminal or a pipe that may have been closed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

ENDS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a program to end; the second comes from a terminal that is closed."""


def handle(
    signals: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], object]
) -> dict[int, Any]:
    """Set the handler of signals, except for SIGHUP where `nohup` ignores it.

    Returns the handlers before, of the signals that were set.
    """
    return {
        number: signal.signal(number, handler)
        for number in signals
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }


def quiet() -> None:
    """Send further output nowhere, once the terminal or the reader of a pipe is gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # A stream that a test or a notebook has replaced has no descriptor.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(null, stream.fileno())
    os.close(null)


def complain(text: str) -> None:
    """Print a line to standard error, where it still goes anywhere."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        quiet()
