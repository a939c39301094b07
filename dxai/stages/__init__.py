"""Thin commands, one a DVC stage: `python -m dxai.stages.<module> ...` beside params.yaml."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

from dxai.paths import HERE
from dxai.utils import addresses, terminal
from dxai.utils.errors import is_told, told
from dxai.utils.files import taking_turns
from dxai.utils.memory import keep_freed


def run_stage(stage: Callable[..., None], alone: bool = False) -> None:
    """Call `stage` with the command line's arguments, one for each of its parameters.

    With `alone`, for a stage whose unfinished work is in .work under the item's name, one process
    at a time works on an item: a run and a `dvc repro` by hand may come to the same one.

    A user's error becomes one line and exit code 1. Ctrl-C, SIGTERM and a closed terminal end with
    130, 143 and 129 after the stage has put its files in order.
    """
    names = inspect.signature(stage).parameters
    if len(sys.argv) - 1 != len(names):
        command = f"python -m dxai.stages.{Path(sys.argv[0]).stem}"
        sys.exit(" ".join(["usage:", command, *(name.upper() for name in names)]))
    terminal.handle(terminal.ENDS, _terminate)
    addresses.reach_loopback_directly()
    keep_freed()
    item = " ".join([Path(sys.argv[0]).stem, *sys.argv[1:]])
    turn = taking_turns(HERE.at_work / item.replace("/", "-"), item) if alone else nullcontext()
    try:
        with turn:
            stage(*sys.argv[1:])
    except KeyboardInterrupt:
        terminal.complain("interrupted: finished work is kept, run again to resume")
        sys.exit(130)
    except Exception as error:
        if not is_told(error):
            raise
        sys.exit(f"error: {told(error)}")


def _terminate(signum: int, frame: FrameType | None) -> None:
    terminal.complain("terminated: finished work is kept, run again to resume")
    raise SystemExit(128 + signum)
