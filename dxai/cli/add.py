"""`dxai add`: bring a dataset or a classifier of your own."""

from __future__ import annotations

import argparse
from typing import Any

from dxai.cli import Commands
from dxai.cli.use import override

ACTIVATIONS = ("none", "softmax", "sigmoid")
REPEATED: dict[str, Any] = {"metavar": "KEY=VALUE", "type": override, "action": "append"}


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "add",
        help="bring a dataset or a classifier of your own",
        description="Write an entry of params.yaml, link into data/ the files that lie outside of "
        "the project, and print what to type next.",
    )
    kinds = parser.add_subparsers(title="kinds", required=True, metavar="KIND")
    _add_dataset_parser(kinds)
    _add_classifier_parser(kinds)
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
    _add_option(parser, "an option of the layout")
    _add_common(parser)
    parser.set_defaults(kind="dataset")


def _add_classifier_parser(kinds: Commands) -> None:
    parser = kinds.add_parser(
        "classifier",
        help="a network as a module, or as a file of torch.export or TorchScript",
        description="Explain this network: check it on some images of each dataset that is run.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the classifier")
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="package.module:name of a torch module or of a function that returns one, a file of "
        "torch.export or TorchScript, or a built-in architecture",
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--no-train", action="store_true", help="it brings its weights itself; take it as it is"
    )
    twin = parser.add_mutually_exclusive_group()
    twin.add_argument("--no-twin", action="store_true", help="train no second network for scoring")
    twin.add_argument("--twin", metavar="FILE", help="weights of the second network for scoring")
    _add_common(parser)
    parser.set_defaults(kind="classifier")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how a network takes its images and returns its logits."""
    parser.add_argument("--weights", metavar="FILE", help="its trained weights")
    floats: dict[str, Any] = {"type": float, "nargs": "+", "metavar": "X"}
    parser.add_argument("--mean", **floats, help="mean of each channel, subtracted")
    parser.add_argument("--std", **floats, help="deviation of each channel, divided by")
    parser.add_argument(
        "--value-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="range of its images before mean and std; default: 0 1 with these, else -1 1",
    )
    parser.add_argument("--size", type=int, metavar="N", help="side of its images, pixels")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="classes in the network's order"
    )
    parser.add_argument("--field", metavar="NAME", help="field of its result with the logits")
    parser.add_argument(
        "--outputs", type=int, nargs="+", metavar="N", help="index of the logit of each class"
    )
    parser.add_argument("--activation", choices=ACTIVATIONS, help="what it applies to its logits")
    _add_option(parser, "an argument of its constructor")


def _add_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--option", **REPEATED, dest="options", default=[], help=f"{what}; may be repeated"
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", action="store_true", help="run the others of its kind, too")
    parser.add_argument("--profile", metavar="NAME", help="take all other settings from a profile")
    parser.add_argument(
        "--set",
        **REPEATED,
        dest="overrides",
        default=[],
        help="another setting, as for `dxai use`; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    """Add the entry; print what was found, what changed, and what to type next."""
    from dxai.cli.entries import add_classifier, add_dataset

    add = {"dataset": add_dataset, "classifier": add_classifier}[options.kind]
    add(options)
    return 0
