"""`dxai compare`: show how two MLflow runs differ."""

from __future__ import annotations

import argparse

from dxai.cli import Commands


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "compare",
        help="show how two MLflow runs differ",
        description="Settings, data and code that differ, and every cell of Tables 1-4 and 6 that "
        "does; first those that differ by more than the intervals of both runs explain.",
        epilog="A RUN is an id or the beginning of one, a name (the newest run of that name), or "
        "`latest`; NAME~1 is the one before it.",
    )
    parser.add_argument("before", metavar="RUN", help="the run to start from")
    parser.add_argument("after", metavar="RUN", help="the run to compare with it")
    parser.add_argument("--all", action="store_true", help="print cells that are the same, too")
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "json"),
        default="text",
        help="default: %(default)s",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    from dxai.reporting.text_comparison import FORMATS
    from dxai.results.comparison import compare
    from dxai.tracking import mlflow_store

    found = compare(mlflow_store.read_run(options.before), mlflow_store.read_run(options.after))
    print(FORMATS[options.format](found, options.all))
    return 0
