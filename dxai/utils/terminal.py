"""Output to a terminal or a pipe that may have been closed."""

from __future__ import annotations

import contextlib
import os
import sys


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
