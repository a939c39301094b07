"""`dxai clean`: list what nobody needs any more, and remove it if told to."""

from __future__ import annotations

import argparse
import sys

from dxai.cli import Commands

KINDS = ("workspaces", "unfinished", "cache", "mlflow", "prefect", "ray")
DAYS = 30.0


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "clean",
        help="list what nobody needs any more, and remove it with --yes",
        description="List what has piled up in the project, with size, age and reason: workspaces "
        "of ended runs, trainings that nothing has gone on with, files in DVC's cache that no kept "
        "run needs, files of runs that were deleted in MLflow, Prefect's history, sessions of Ray. "
        "Nothing is listed that is in use. Without --yes, nothing is removed.",
    )
    parser.add_argument(
        "kinds",
        metavar="KIND",
        nargs="*",
        type=_kind,
        help=f"of {', '.join(KINDS)}; default: all",
    )
    parser.add_argument(
        "--older",
        metavar="DAYS",
        type=_days,
        default=DAYS,
        help="leave what was changed in the last DAYS days (default: 30)",
    )
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    return parser


def _kind(text: str) -> str:
    if text not in KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(KINDS)}")
    return text


def _days(text: str) -> float:
    value = float(text)
    if not 0 <= value < 36500:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days")
    return value


def run(options: argparse.Namespace) -> int:
    """List, or remove; exit code 1 if something could not be looked at or removed."""
    from dxai.paths import HERE
    from dxai.reporting.text import aligned
    from dxai.tracking import clean
    from dxai.utils.errors import is_told, told

    search, found, failed = clean.Search(HERE, options.older), [], False
    for kind in options.kinds or KINDS:
        try:
            found += [(kind, item) for item in clean.KINDS[kind](search)]
        except Exception as error:
            if not is_told(error):
                raise
            print(f"error: {kind}: {told(error)}", file=sys.stderr)
            failed = True
    for note in search.notes:
        print(note)
    if not found:
        print(f"nothing to remove that is older than {options.older:g} days")
        return int(failed)
    rows = [
        [kind, item.name, _size(item.size), f"{item.days:.0f}", item.why] for kind, item in found
    ]
    print(aligned([["kind", "what", "size", "days", "why"], *rows]))
    known = _size(sum(item.size or 0 for _, item in found))
    if not options.yes:
        print(f"\n{known} in {len(found)} entries; `--yes` removes them")
        return int(failed)
    for _, item in found:
        try:
            item.remove()
        except Exception as error:
            if not is_told(error):
                raise
            print(f"error: {item.name}: {told(error)}", file=sys.stderr)
            failed = True
        else:
            print(f"removed: {item.name}", flush=True)
    return int(failed)


def _size(count: int | None) -> str:
    """Format bytes for a reader; unknown ones are a dash."""
    if count is None:
        return "-"
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
