"""`dxai explain`: explain image files with a trained decomposition."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from dxai.cli import Commands
from dxai.cli.options import add_device, add_modules
from dxai.paths import PARAMS

MLFLOW_RUN = re.compile(r"[0-9a-f]{32}|runs:/.+")
"""A run in MLflow, or a file in one."""


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "explain",
        help="explain images with a trained decomposition",
        description="For each image write a picture of its parts, with the classifier's "
        "probabilities of each, and a JSON with the numbers; and index.html, a page of all images "
        "with a slider that removes the class-distinct part. The page's path is printed last.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, or folders of images; without --model an explainer's folder comes first",
    )
    parser.add_argument(
        "--model",
        metavar="RUN_OR_FILE",
        help="an explainer's folder or model.pt, an MLflow run id, a runs:/ URI, or hf://owner/name",
    )
    parser.add_argument(
        "--classifier", metavar="FILE", help="ask this classifier instead of the model's own"
    )
    parser.add_argument(
        "--class", metavar="NAME", dest="class_name", help="explain this class; default: predicted"
    )
    parser.add_argument(
        "--kind",
        choices=("neutral", "generated"),
        default="neutral",
        help="class-distinct part: the smallest one without which the classifier is undecided, or "
        "the generator's branch, which the tables score (%(default)s)",
    )
    parser.add_argument(
        "--choices",
        type=int,
        choices=range(1, 101),
        metavar="N",
        help="classes to choose from on the page: the explained one, then the most probable "
        "others; each takes as long as the first (default: 3 for up to 8 images, 1 for more)",
    )
    parser.add_argument(
        "--out", default="explanations", metavar="DIR", help="folder to write to (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the latent z (%(default)s)"
    )
    add_modules(parser, "those of params.yaml are known")
    add_device(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Explain the images; exit code 1 if one of them could not be read."""
    from dxai.datasets.pictures import image_files
    from dxai.library.trust import trusted
    from dxai.reporting.explanations import explain_files, open_model

    if options.model is None and len(options.images) < 2:
        raise ValueError(
            f"found only {options.images[0]}; name an explainer and images, as in `dxai explain "
            "explainer/ photos/`"
        )
    source = options.images.pop(0) if options.model is None else options.model
    files = image_files(options.images)
    modules = [*options.modules, *modules_of_params(), *trusted()]
    path, device = model_path(source), options.device
    model = open_model(path, options.classifier, options.seed, modules, device)
    out = Path(options.out)
    unread = explain_files(model, files, out, options.class_name, options.kind, options.choices)
    return 1 if unread else 0


def modules_of_params() -> list[str]:
    """Return the import paths of the user's classifiers in the working folder's params.yaml."""
    if not Path(PARAMS).is_file():
        return []
    try:
        from dxai.config.params_file import read_yaml

        entries = read_yaml(PARAMS).get("classifiers")
    except (ImportError, ValueError):  # the core has no YAML reader; the model may need none
        return []
    entries = entries.values() if isinstance(entries, dict) else []
    found = [entry.get("arch") for entry in entries if isinstance(entry, dict)]
    return [arch for arch in found if isinstance(arch, str) and ":" in arch]


def model_path(source: str) -> Path:
    """Return the path of a decomposition, downloaded if it is one of MLflow or of a hub.

    Raises `ValueError` or `OSError` if the model does not exist.
    """
    path = Path(source)
    if path.exists():
        return path
    if source.startswith("hf://"):
        from dxai.library.sharing import fetched

        return fetched(source)
    if not MLFLOW_RUN.fullmatch(source):
        raise ValueError(
            f"{source}: no such file or folder, MLflow run id, runs:/ URI or hf://owner/name"
        )
    from dxai.tracking.mlflow_store import download_model

    return download_model(source)
