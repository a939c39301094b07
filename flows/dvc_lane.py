"""Bring one target after the other up to date with DVC: the program of a lane (`flows.lanes`).

Standard input names the targets, a line each. A line that starts with NUL follows what DVC and the
stage print, with DVC's exit code. DVC takes a second to load, which an item would pay for.
"""

import os
import sys

from dvc.cli import main

INTERRUPTED = 252
"""DVC's exit code after Ctrl-C."""


def work() -> None:
    # A stage inherits standard input, and must not read the names of targets.
    names = os.fdopen(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in iter(names.readline, ""):
        code = main(["--wait-for-lock", "repro", "--single-item", name.strip()])
        sys.stderr.flush()
        print(f"\n\0{code}", flush=True)
        if code == INTERRUPTED:
            break


if __name__ == "__main__":
    work()
