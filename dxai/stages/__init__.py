"""Thin commands, one a DVC stage: `python -m dxai.stages.<module> ...` beside params.yaml."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dxai.utils.memory import keep_freed


def run_stage(stage: Callable[..., None]) -> None:
    """Call `stage` with the command line's arguments, one for each of its parameters.

    A user's error becomes one line and exit code 1. Ctrl-C and SIGTERM end with 130 and 143 after
    the stage has put its files in order.
    """
    names = inspect.signature(stage).parameters
    if len(sys.argv) - 1 != len(names):
        command = f"python -m dxai.stages.{Path(sys.argv[0]).stem}"
        sys.exit(" ".join(["usage:", command, *(name.upper() for name in names)]))
    signal.signal(signal.SIGTERM, _terminate)
    keep_freed()
    try:
        stage(*sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted: finished work is kept, run again to resume", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _terminate(signum: int, frame: FrameType | None) -> None:
    print("terminated: finished work is kept, run again to resume", file=sys.stderr)
    raise SystemExit(128 + signum)
