"""`dxai add`: bring a dataset or a classifier of your own."""

from __future__ import annotations

import argparse
from typing import Any

from dxai.cli import Commands
from dxai.cli.use import override


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "add",
        help="bring a dataset or a classifier of your own",
        description="Write an entry of params.yaml, link into data/ the files that lie outside of "
        "the project, and print what to type next.",
    )
    kinds = parser.add_subparsers(title="kinds", required=True, metavar="KIND")
    _add_dataset_parser(kinds)
    return parser


def _add_dataset_parser(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "dataset",
        help="images in a folder, behind a URL, or listed by a CSV file",
        description="Run on these images: recognise how they are laid out, and count them.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the dataset")
    parser.add_argument("source", metavar="PATH", help="folder, CSV file or URL of the images")
    parser.add_argument("--layout", metavar="NAME", help="default: the layout that fits")
    parser.add_argument("--channels", type=int, metavar="N", help="1 (gray) or 3 (RGB)")
    _add_common(parser, "an option of the layout")


def _add_common(parser: argparse.ArgumentParser, option: str) -> None:
    repeated: dict[str, Any] = {"metavar": "KEY=VALUE", "type": override, "action": "append"}
    parser.add_argument(
        "--option", **repeated, dest="options", default=[], help=f"{option}; may be repeated"
    )
    parser.add_argument("--keep", action="store_true", help="run the others of its kind, too")
    parser.add_argument("--profile", metavar="NAME", help="take all other settings from a profile")
    parser.add_argument(
        "--set",
        **repeated,
        dest="overrides",
        default=[],
        help="another setting, as for `dxai use`; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    """Add the entry; print what was found, what changed, and what to type next."""
    from dxai.cli.entries import add_dataset

    add_dataset(options)
    return 0
