"""What `dxai demo` shows: photographs taken apart by an explainer that ships in the package.

The explainer, the patches and README.md, which tells their origin, are beside this file; `make.py`
makes all three.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dxai.datasets.images import read_image
from dxai.datasets.in_memory import InMemoryImages
from dxai.explain.base import Explainer
from dxai.explain.registry import build_explainer
from dxai.library.explainer import DXAI
from dxai.library.page import write_page
from dxai.utils.files import require_folder

FOLDER = Path(__file__).parent
PATCHES = "patches"
"""Folder of the images, named `<class>-<row>-<column>.png` after their place in a photograph."""
PAGE = "index.html"
METHODS = ("gradcam", "ig")
"""Heatmaps that are shown beside the parts where Captum is installed."""
TITLE = "What tells brick, grass and gravel apart?"
INTRODUCTION = (
    "Patches of three photographs; training used other parts of them. A small network tells "
    "brick, grass and gravel apart; for each patch, the explainer finds what the network went by.",
    "Each class is a single photograph, so this shows how to read a part, not how bricks look in "
    "general. Photographs: brick and gravel by CC0Textures, grass by linolafett; all CC0, as "
    "scikit-image ships them.",
)


def write_demo(out: Path | str, device: str = "auto") -> Path:
    """Take the patches apart and write a page of them.

    Parameters
    ----------
    out : path
        Folder of the page; it is created if missing.
    device : str
        As for `DXAI.load`.

    Returns
    -------
    Path
        The page, `index.html`. It loads nothing.

    Raises
    ------
    OSError
        In one line, if the folder takes no files, or has an index.html that is not such a page.
    """
    require_folder(Path(out))
    explainer, introduction = DXAI.load(FOLDER, device=device), list(INTRODUCTION)
    methods: list[Explainer] = []
    try:
        methods += [build_explainer(name, explainer.classifier) for name in METHODS]
    except ModuleNotFoundError:  # the core has no Captum
        introduction.append(
            "Once Captum is installed (`pip install captum`), Grad-CAM and Integrated Gradients "
            "stand beside the parts."
        )
    page = Path(out) / PAGE
    return write_page(explainer, patches(explainer), page, TITLE, introduction, methods=methods)


def patches(explainer: DXAI) -> InMemoryImages:
    """Read the patches, at the explainer's size."""
    names, info = explainer.info["class_names"], explainer.info
    files = sorted((FOLDER / PATCHES).glob("*.png"))
    pixels = np.stack([read_image(file, info["image_size"], info["channels"]) for file in files])
    places = [file.stem.split("-") for file in files]
    labels = np.array([names.index(name) for name, *_ in places])
    titles = [f"{name}, row {row}, column {column}" for name, row, column in places]
    return InMemoryImages(pixels, labels, titles, names)
