"""`dxai evaluate`: Table 1 and Definition 1 of an explainer on your images."""

from __future__ import annotations

import argparse

from dxai.cli import Commands
from dxai.cli.options import add_device, add_modules


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "evaluate",
        help="compare an explainer with other methods on your images",
        description="Print Table 1, with its guards, and Definition 1; write them, the outcomes of "
        "each image and a page with the slider. Nothing is trained.",
    )
    parser.add_argument("explainer", metavar="EXPLAINER", help="an explainer's folder or model.pt")
    parser.add_argument(
        "images",
        metavar="IMAGES",
        help="as for `dxai fit`; of test/ and train/ only test is used, and images that the "
        "explainer was fitted on are left out",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["ig"],
        metavar="NAME",
        help="methods beside Random, such as ig gradcam lrp lime; an unknown one lists all (ig)",
    )
    parser.add_argument(
        "--images",
        dest="count",
        type=int,
        default=100,
        metavar="N",
        help="images that are scored, spread over the classes (%(default)s)",
    )
    parser.add_argument(
        "--out", default="evaluation", metavar="DIR", help="folder to write to (%(default)s)"
    )
    add_modules(parser, "what `dxai fit` was given in this folder is known")
    add_device(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Evaluate; the tables are printed last."""
    from dxai.cli.explain import model_path, modules_of_params
    from dxai.library.evaluation import evaluate
    from dxai.library.trust import trusted

    evaluate(
        model_path(options.explainer),
        options.images,
        options.methods,
        count=options.count,
        out=options.out,
        modules=[*options.modules, *modules_of_params(), *trusted()],
        device=options.device,
    )
    return 0
