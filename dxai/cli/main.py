"""The `dxai` command line: its parser, and how errors end it."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from dxai import __version__
from dxai.cli import (
    add,
    clean,
    compare,
    demo,
    evaluate,
    explain,
    fit,
    reproduce,
    table,
    tables,
    track,
    use,
)
from dxai.utils import addresses, terminal
from dxai.utils.errors import is_told, told

COMMANDS = (demo, fit, explain, evaluate, use, add, table, tables, track, compare, reproduce, clean)
LIBRARY = ("dxai.cli.fit", "dxai.cli.evaluate")
"""Modules of the commands for which the extra `fit` is enough; `demo` and `explain` need the core
alone, and the others the extra `pipeline`, in the project's folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a user's error is one line on stderr."""
    options = _parser().parse_args(arguments)
    addresses.reach_loopback_directly()
    try:
        code = options.run(options)
        sys.stdout.flush()  # here a closed pipe is noticed
        return code
    except KeyboardInterrupt:
        terminal.complain("interrupted")
        return 130
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "dxai"):
            raise
        extra = "dxai[fit]" if options.run.__module__ in LIBRARY else "dxai[pipeline]"
        text = f"error: {package} is not installed; `pip install '{extra}'` installs it"
        terminal.complain(text)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        terminal.quiet()
        return 128 + signal.SIGPIPE
    except Exception as error:
        if not is_told(error):
            raise
        terminal.complain(f"error: {told(error)}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dxai",
        description="Explain image classifiers by decomposing images into a class-agnostic and a "
        "class-distinct part.",
    )
    parser.add_argument("--version", action="version", version=f"dxai {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run)
    return parser
