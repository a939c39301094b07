"""Make the explainer, the patches and README.md of the demo from a project that has trained it.

Run it in the project's folder, after the commands that README.md names::

    python -m dxai.library.demo.make
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dxai.config.params_file import load_params
from dxai.config.profiles import load_profile
from dxai.config.schema import Params
from dxai.config.settings import parse
from dxai.datasets.base import File, Listing, Sample
from dxai.datasets.in_memory import InMemoryImages
from dxai.datasets.registry import LAYOUTS
from dxai.library.demo import FOLDER, PATCHES
from dxai.library.explainer import DXAI
from dxai.library.verdict import judge
from dxai.paths import HERE, HISTORY, MODEL
from dxai.utils.files import atomic, sha256

PROFILE, DATASET, CLASSIFIER, SEED = "quick", "textures", "resnet18", 0
SETTINGS: dict[str, int] = {
    "prepare.image_size": 64,
    "datasets.textures.options.block": 128,
    "decompose.coarsest": 16,
}
"""What differs from the profile, by dotted key: images of 64 px, networks as deep as at 32 px."""
PATCHES_PER_CLASS = 2
PLACE = re.compile(r"\w+\.png rows (\d+)-\d+, columns (\d+)-\d+")
"""Where the layout took a patch from."""
README = """\
# The explainer of `dxai demo`

`model.pt` and `patches/` are written by these commands, in a clone of the project:

{commands}

| | |
|---|---|
| commit | {commit} |
| network | {classifier}, width {width}, trained to tell {classes} apart |
| size | {size} px, gray; {bytes:.1f} MB: both networks as the training left them, float32 |
| training | {steps:,} steps in {minutes:.0f} minutes beside other work on two cores |
| SHA-256 | `{sha256}` |

In float16 the file would be half as large and the generator's part nearly equal (on twelve test
images at 32 px, within 0.2 gray levels), but not the part that is shown first: it is searched for
by an optimisation, which amplifies the difference to 6 gray levels on average.

## Guards

On {images} validation images, from other blocks of the photographs than the training images:

{guards}

docs/method.md says how to read them.

## Photographs

The patches are test images: training and tuning saw none of their pixels. They
are spread evenly over the test images of each class; a file's name says where its upper left corner
is in the photograph. The photographs ship in scikit-image, whose documentation of `skimage.data`
names origin and licence:

| photograph | origin | licence |
|---|---|---|
| brick | CC0Textures (now ambientCG), Bricks25 | CC0 1.0 |
| grass | DeviantArt, linolafett, "Grass 01" | CC0 1.0 |
| gravel | CC0Textures (now ambientCG), Gravel04 | CC0 1.0 |
"""


def recipe() -> Params:
    """Return the settings that the explainer is trained with."""
    values: dict[str, Any] = load_profile(PROFILE)
    for key, value in SETTINGS.items():
        *path, name = key.split(".")
        block = values
        for step in path:
            block = block[step]
        block[name] = value
    return parse(Params, values, "")


def commands() -> list[str]:
    """Return the commands that train the explainer and make these files."""
    changes = [f"--set {key}={value}" for key, value in SETTINGS.items()]
    return [
        " ".join(["dxai use", PROFILE, *changes]),
        f"dvc repro decompose@{DATASET}-{CLASSIFIER}-{SEED}",
        "python -m dxai.library.demo.make",
    ]


def listing(params: Params) -> Listing:
    """List the patches of all photographs, with their splits."""
    dataset = params.dataset(DATASET)
    return LAYOUTS[dataset.layout].find(None, dataset, params.prepare)


def images_of(listed: Listing, split: str) -> InMemoryImages:
    """Read a split; the ids of its images say where they come from."""
    units = [unit for unit in listed.units if unit.split == split]
    read = [one for unit in units for one in listed.read(unit, _no_file)]
    found = [one for one in read if isinstance(one, Sample)]
    labels = np.array([listed.class_names.index(one.label) for one in found])
    pixels = np.stack([one.image for one in found])
    return InMemoryImages(pixels, labels, [one.source for one in found], listed.class_names)


def _no_file(file: File) -> bytes:
    raise AssertionError(f"{file}: the photographs are in scikit-image")


def main() -> None:
    """Write the files anew."""
    params, expected = load_params(), recipe()
    for name in ("datasets", "prepare", "decompose"):
        if getattr(params, name) != getattr(expected, name):
            raise SystemExit(
                f"params.yaml: {name} differs from the recipe; first run\n" + "\n".join(commands())
            )
    folder = HERE.decomposition(DATASET, CLASSIFIER, SEED)
    explainer, listed = DXAI.load(folder, device="cpu"), listing(params)
    with atomic(FOLDER / MODEL) as temporary:
        shutil.copyfile(folder / MODEL, temporary)
    write_patches(images_of(listed, "test"), FOLDER / PATCHES)
    history: Any = pd.read_csv(folder / HISTORY).to_dict("records")
    validation = images_of(listed, "validation")
    with tempfile.TemporaryDirectory() as scores:
        verdict = judge(explainer, images_of(listed, "train"), validation, history, Path(scores))
    text = README.format(
        commands="\n".join(f"    {line}" for line in commands()),
        commit=subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip(),
        classifier=CLASSIFIER,
        width=params.classifiers[CLASSIFIER].options["width"],
        classes=", ".join(listed.class_names),
        size=params.prepare.image_size,
        bytes=(FOLDER / MODEL).stat().st_size / 1e6,
        steps=history[-1]["step"],
        minutes=history[-1]["seconds"] / 60,
        sha256=sha256(FOLDER / MODEL),
        images=verdict.numbers["images"],
        guards="\n".join(f"- {line}" for line in verdict.text),
    )
    with atomic(FOLDER / "README.md") as temporary:
        temporary.write_text(text)
    print(text)


def write_patches(test: InMemoryImages, folder: Path) -> None:
    """Write some test images of each class, spread evenly, in place of those in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for i in test.spread(PATCHES_PER_CLASS):
        place = PLACE.fullmatch(test.ids[i])
        assert place is not None, test.ids[i]
        name = "-".join([test.class_names[test.labels[i]], *place.groups()])
        Image.fromarray(test.pixels[i]).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
