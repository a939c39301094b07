"""`dxai use`: choose what `dvc repro` runs."""

from __future__ import annotations

import argparse

from dxai.cli import Commands
from dxai.paths import PARAMS


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "use",
        help="choose what `dvc repro` runs",
        description="Rewrite params.yaml: a profile, with other values where asked for. "
        "Prints what changed.",
    )
    parser.add_argument(
        "profile",
        nargs="?",
        help="paper, standard, photo, quick, full or smoke; default: change the file as it is",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        type=override,
        action="append",
        default=[],
        help="another value, for example decompose.steps=300; may be repeated",
    )
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="datasets to run over")
    parser.add_argument("--classifiers", nargs="+", metavar="NAME", help="classifiers to explain")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="baselines to compare with")
    parser.add_argument("--seeds", nargs="+", metavar="N", type=int, help="seeds of the training")
    parser.add_argument("--params", default=PARAMS, metavar="FILE", help=argparse.SUPPRESS)
    return parser


def override(text: str) -> tuple[str, str]:
    """Split KEY=VALUE of the command line."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def run(options: argparse.Namespace) -> int:
    """Rewrite params.yaml and print the changes."""
    from dxai.config.profiles import select_profile

    changes = select_profile(
        options.params,
        options.profile,
        options.datasets,
        options.classifiers,
        options.methods,
        options.seeds,
        dict(options.overrides),
    )
    print("\n".join(changes) if changes else "nothing to change")
    return 0
