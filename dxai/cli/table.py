"""`dxai table`: print a result table."""

from __future__ import annotations

import argparse

from dxai.cli import Commands
from dxai.paths import HERE


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser("table", help="print a result table")
    parser.add_argument(
        "path", nargs="?", default=HERE.table("table1"), help="a CSV table (%(default)s)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    from dxai.reporting.text import format_table

    print(format_table(options.path))
    return 0
