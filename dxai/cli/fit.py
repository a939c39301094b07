"""`dxai fit`: fit an explainer to a classifier."""

from __future__ import annotations

import argparse
import time

from dxai.cli import Commands
from dxai.cli.add import add_network_arguments
from dxai.cli.options import add_device


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "fit",
        help="fit an explainer to your classifier in minutes",
        description="Train an explainer of a classifier on images, in this process, and say what "
        "it is worth. Ctrl-C keeps what is there; the same command goes on.",
    )
    parser.add_argument(
        "images",
        metavar="IMAGES",
        help="a folder with a folder for each class, or a CSV file with the columns path and label",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="NETWORK",
        help="package.module:name of a torch module or of a function that returns one, or a file "
        "of torch.export or TorchScript",
    )
    parser.add_argument(
        "--minutes", type=float, default=15.0, metavar="N", help="for everything (%(default)g)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="train so many steps instead, however long they take: the same numbers every time",
    )
    parser.add_argument(
        "--out", default="explainer", metavar="DIR", help="folder of the explainer (%(default)s)"
    )
    add_network_arguments(parser)
    parser.add_argument(
        "--image-size",
        type=int,
        metavar="N",
        help="side at which images are taken apart, pixels; default: at most 64 (GPU: 128)",
    )
    parser.add_argument("--channels", type=int, choices=(1, 3), help="1 (gray) or 3 (RGB)")
    add_device(parser)
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of all draws (%(default)s)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Fit; the last lines are the verdict, the explainer's folder, and what to type next."""
    began = time.monotonic()  # importing torch counts
    from dxai.config.params_file import parse_yaml
    from dxai.library.fitting import fit
    from dxai.library.trust import remember

    field = options.field
    fit(
        options.model,
        options.images,
        classes=options.classes,
        mean=options.mean,
        std=options.std,
        size=options.size,
        minutes=options.minutes,
        steps=options.steps,
        out=options.out,
        weights=options.weights,
        options={k: parse_yaml(text, f"{k}: {text!r}") for k, text in options.options},
        value_range=options.value_range,
        field=int(field) if (field or "").isdigit() else field,
        outputs=options.outputs,
        activation=options.activation,
        image_size=options.image_size,
        channels=options.channels,
        device=options.device,
        seed=options.seed,
        began=began,
    )
    again = "" if remember(options.model) else f" --module {options.model}"
    print(f"next: dxai explain {options.out} {options.images}{again}")
    return 0
