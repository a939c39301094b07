"""One thin command a DVC stage: `python -m dxai.stages.<stage> ...` beside params.yaml."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

DATA = Path("data/prepared")
CLASSIFIERS = Path("artifacts/classifiers")
DECOMPOSITIONS = Path("artifacts/decompositions")
OUTCOMES = Path("results/outcomes")
RESULTS = Path("results")
TABLES = Path("results/tables")
WORK = Path(".work/checkpoints")
UNFINISHED = Path(".work/prepare")
"""Unfinished work, outside the outputs that DVC deletes before a stage runs."""


def run_stage(stage: Callable[..., None], *names: str) -> None:
    """Call `stage` with the command line's arguments, `names` being what they are called.

    A user's error becomes one line and exit code 1; Ctrl-C and SIGTERM end with 130 and 143 after
    the stage has put its files in order.
    """
    if len(sys.argv) - 1 != len(names):
        usage = " ".join(name.upper() for name in names)
        command = f"python -m dxai.stages.{Path(sys.argv[0]).stem}"
        sys.exit(f"usage: {command} {usage}".rstrip())
    signal.signal(signal.SIGTERM, _terminate)
    try:
        stage(*sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted: what is finished is kept, run again to go on", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _terminate(signum: int, frame: FrameType | None) -> None:
    print("terminated: what is finished is kept, run again to go on", file=sys.stderr)
    raise SystemExit(128 + signum)
