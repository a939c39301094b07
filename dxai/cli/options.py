"""Options that several commands have in common."""

from __future__ import annotations

import argparse


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto (a GPU where there is one), cpu, cuda or cuda:N (%(default)s)",
    )


def add_modules(parser: argparse.ArgumentParser, known: str) -> None:
    """Add `--module`, whose values are `modules`; `known` says what need not be named."""
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="NAME",
        dest="modules",
        help="trust this module or package with a network of your own, or package.module:name with "
        f"a function; may be repeated ({known})",
    )
