"""`dxai reproduce`: compute an MLflow run again and compare."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dxai.cli import Commands
from dxai.utils import terminal


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "reproduce",
        help="compute an MLflow run again and compare",
        description="Make a clone at the run's commit, with its uncommitted changes, settings and "
        "package versions, run every stage in it from nothing, and compare each cell of the "
        "tables and each output. Exit code 0: all cells are the same; 1: they are not. Ctrl-C "
        "keeps what is finished; run the same command to resume.",
        epilog="A RUN is named as for `dxai compare`.",
    )
    parser.add_argument("spec", metavar="RUN", help="the run")
    parser.add_argument(
        "--into", metavar="FOLDER", type=Path, help="the clone; default: .work/reproduced/<id>"
    )
    parser.add_argument(
        "--here-environment",
        action="store_true",
        help="use the installed packages, whatever versions the run had",
    )
    parser.add_argument(
        "--from-cache",
        action="store_true",
        help="take outputs from this project's DVC cache, each checked by its hash, and compute "
        "only the others",
    )
    parser.add_argument(
        "--tolerance",
        metavar="X",
        type=_tolerance,
        default=0.0,
        help="largest difference of cells that count as the same (default: 0)",
    )
    return parser


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return value


def run(options: argparse.Namespace) -> int:
    """Reproduce the run and print how it differs; exit code 1 if a cell does."""
    from dxai.tracking.reproduce import as_text, reproduce

    # Exit after DVC has ended, not before.
    terminal.handle(terminal.ENDS, lambda number, _: sys.exit(128 + number))
    found = reproduce(
        options.spec,
        options.into,
        options.here_environment,
        options.from_cache,
        lambda line: print(line, flush=True),
    )
    print(as_text(found, options.tolerance), flush=True)
    return 1 if found.differing(options.tolerance) else 0
