"""What a decomposition finds on the drawn samples, whose class-distinct part is known.

Run as `python -m benchmarks.samples [DATASET ..]`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dxai import draws
from dxai.datasets import ShardedDataset, prepare
from dxai.evaluate.localisation import correlation, energy_inside
from dxai.models.checkpoint import freeze
from dxai.models.classifiers import build_classifier
from dxai.models.decomposer import Decomposer
from dxai.params import Params, load_params
from dxai.profiles import select_profile
from dxai.training.classifier import initial_seed, score, train_classifier
from dxai.training.loop import train
from dxai.training.state import Checkpoint
from dxai.training.step import build_networks

SETS = ("afhq", "celeba", "noise", "dota", "brats", "peppers", "tomatoes", "apples", "shapes")


def main() -> None:
    """Print accuracy, and energy inside the masks or correlation with what was added, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"default: {' '.join(SETS)}")
    parser.add_argument("--profile", default="quick", help="settings (%(default)s)")
    parser.add_argument("--classifier", default="simple", help="architecture (%(default)s)")
    parser.add_argument("--accuracy-only", action="store_true", help="train no decomposition")
    args = parser.parse_args()
    for name in args.datasets or SETS:
        params = params_of(name, args.profile)
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, params, Path(folder), args.classifier, not args.accuracy_only)
        print(json.dumps(found), flush=True)


def params_of(name: str, profile: str) -> Params:
    """The settings of a profile for one dataset of the catalogue."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(Path("params.yaml").read_text())
        select_profile(path, profile, [name])
        return load_params(path)


def measure(
    name: str, params: Params, folder: Path, architecture: str, decompose: bool = True
) -> dict[str, Any]:
    """Prepare, train the classifier, and the decomposition, and score it on test images.

    Returns
    -------
    dict
        ``dataset``, ``test_images``, ``accuracy``; and, with `decompose`, ``psnr_db`` and, over the
        test images for which it is known, ``energy_ratio`` (energy inside the mask over the mask's
        share of the area, each averaged over images) or ``correlation`` with what was added.
    """
    prepare(name, params, folder / name, folder / "work")
    data, validation, test = (
        ShardedDataset(folder / name, split) for split in ("train", "validation", "test")
    )
    settings = params.classifier_for(name)
    torch.manual_seed(initial_seed(settings.seed))
    shape = (data.channels, len(data.class_names), data.image_size)
    classifier = build_classifier(architecture, *shape)
    checkpoint = Checkpoint(folder / "classifier")
    train_classifier(classifier, settings, data, validation, settings.seed, checkpoint, name)
    found = {
        "dataset": name,
        "classes": len(data.class_names),
        "test_images": len(test),
        "accuracy": round(score(classifier, test)[1], 4),
    }
    if not decompose:
        return found
    began, seed = time.monotonic(), params.seeds[0]
    networks = build_networks(params.decompose_for(name), *shape, freeze(classifier), seed)
    checkpoint = Checkpoint(folder / "decomposition")
    history = train(
        networks, params.decompose_for(name), data, validation, seed, checkpoint, name,
        lambda step, panel: None,
    )  # fmt: skip
    found |= {"psnr_db": round(history[-1]["psnr_db"], 1)}
    return found | localise(networks.average, test) | {"seconds": round(time.monotonic() - began)}


@torch.no_grad()
def localise(decomposer: Decomposer, test: ShardedDataset) -> dict[str, Any]:
    """How well psi_distinct of the true class agrees with what is known to make the class."""
    kind = "mask" if test.having("mask") else "neutral"
    places = test.having(kind)
    if kind == "neutral" and "clean" in test.class_names:  # of a clean image nothing was added
        places = [i for i in places if test.class_names[test.labels[i]] != "clean"]
    batch = test.batch(places)
    latent = draws.normal(0, "latent", 0, places, (decomposer.latent_dim,))
    part = decomposer(batch.images, batch.labels, latent).distinct
    if kind == "neutral":
        values = correlation(part, batch.images - test.neutral(places))
        return {"known": len(places), "correlation": round(float(values.mean()), 3)}
    masks = test.masks(places)
    inside, share = energy_inside(part, masks).mean(), masks.mean()
    return {
        "known": len(places),
        "energy_inside": round(float(inside), 3),
        "area": round(float(share), 4),
        "energy_ratio": round(float(inside / share), 2),
    }


if __name__ == "__main__":
    main()
