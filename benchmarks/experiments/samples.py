"""Score decompositions of the generated samples, whose class-distinct part is known.

Run as `python -m benchmarks.experiments.samples [DATASET ..]`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.config.profiles import select_profile
from dxai.config.schema import Params
from dxai.datasets.prepare import prepare
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.metrics.localisation import correlation, energy_inside
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import freeze
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import initial_seed, score, train_classifier
from dxai.training.decomposition import train
from dxai.training.events import Console
from dxai.training.run import TrainingRun
from dxai.training.step import build_networks
from dxai.types import Batch
from dxai.utils import keyed_random

SETS = ("afhq", "celeba", "noise", "dota", "brats", "peppers", "tomatoes", "apples", "shapes")


def main() -> None:
    """Print accuracy, and energy inside the masks or correlation with the difference, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"default: {' '.join(SETS)}")
    parser.add_argument("--profile", default="quick", help="settings (%(default)s)")
    parser.add_argument("--classifier", default="simple", help="architecture (%(default)s)")
    parser.add_argument("--accuracy-only", action="store_true", help="do not train a decomposition")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write a figure of each set")
    args = parser.parse_args()
    for name in args.datasets or SETS:
        params = params_of(name, args.profile)
        with tempfile.TemporaryDirectory() as folder:
            found = measure(
                name, params, Path(folder), args.classifier, not args.accuracy_only, args.pictures
            )
        print(json.dumps(found), flush=True)


def params_of(name: str, profile: str) -> Params:
    """Return the settings of a profile for one dataset of the catalogue."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(Path("params.yaml").read_text())
        select_profile(path, profile, [name])
        return load_params(path)


def measure(
    name: str,
    params: Params,
    folder: Path,
    architecture: str,
    decompose: bool = True,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Prepare a dataset, train classifier and decomposition, and score them on test images.

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
    classifier = build_network(architecture, *shape)
    checkpoint, console = Checkpoint(folder / "classifier"), Console(name, folder)
    train_classifier(
        classifier, settings, TrainingRun(data, validation, settings.seed, checkpoint, console)
    )
    found = {
        "dataset": name,
        "classes": len(data.class_names),
        "test_images": len(test),
        "accuracy": round(score(classifier, test)[1], 4),
    }
    if not decompose:
        return found
    began, seed = time.monotonic(), params.seeds[0]
    wanted = params.decompose_for(name, next(iter(params.classifiers)))
    networks = build_networks(wanted, *shape, freeze(classifier), seed)
    checkpoint = Checkpoint(folder / "decomposition")
    history = train(networks, wanted, TrainingRun(data, validation, seed, checkpoint, console))
    found |= {"psnr_db": round(history[-1]["psnr_db"], 1)}
    batch, kind, known = known_part(test)
    part = explain(networks.average, batch)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        figure(batch.images, known, part).save(pictures / f"{name}.png")
    if kind == "neutral":
        values = correlation(part, known)
        found |= {"known": len(known), "correlation": round(float(values.mean()), 3)}
    else:
        inside, area = energy_inside(part, known).mean(), known.mean()
        found |= {
            "known": len(known),
            "energy_inside": round(float(inside), 3),
            "area": round(float(area), 4),
            "energy_ratio": round(float(inside / area), 2),
        }
    return found | {"seconds": round(time.monotonic() - began)}


def known_part(test: ShardedDataset) -> tuple[Batch, str, Tensor]:
    """Return the test images with ground truth, the kind of ground truth, and the ground truth.

    It is a mask, (B, 1, H, W), or the image minus the image without its class, (B, C, H, W).
    """
    kind = "mask" if test.having("mask") else "neutral"
    chosen = test.having(kind)
    if kind == "mask":
        return test.batch(chosen), kind, test.masks(chosen)
    # A clean image has no added noise.
    chosen = [i for i in chosen if test.class_names[test.labels[i]] != "clean"]
    batch = test.batch(chosen)
    return batch, kind, batch.images - test.neutral(chosen)


@torch.no_grad()
def explain(decomposer: Decomposer, batch: Batch) -> Tensor:
    """Return psi_distinct of the true classes, (B, C, H, W), with a seeded latent per image."""
    latent = keyed_random.normal(0, "latent", 0, batch.index.tolist(), (decomposer.latent_dim,))
    return decomposer(batch.images, batch.labels, latent).distinct


def figure(images: Tensor, known: Tensor, part: Tensor, shown: int = 10) -> Image.Image:
    """Stack images, ground truth and psi_distinct vertically; zero is gray."""
    chosen = torch.linspace(0, len(images) - 1, min(shown, len(images))).long()
    if known.shape[1] == 1 and known.min() >= 0:
        known = 2 * known - 1  # a mask: black and white
    rows = [row[chosen].expand(-1, images.shape[1], -1, -1) for row in (images, known, part)]
    rows = [F.pad(row, (1, 1, 1, 1), value=1.0) for row in rows]
    sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    pixels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main()
