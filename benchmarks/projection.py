"""Compare class-agnostic images of a finished run, on validation images: how undecided, how near.

Run as `python -m benchmarks.projection FOLDER`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dxai.config.params_file import load_params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.metrics import removal
from dxai.metrics.scorer import chosen_images
from dxai.models.serialization import load_classifier
from dxai.paths import Paths
from dxai.types import GENERATED, Batch, Decomposition

BETAS = torch.linspace(0, 1, 21).tolist()
"""Points of the ray x - beta psi_1, of which the most undecided is taken."""
MIXTURES = 300
"""Mixtures of an image with one of each other class, of which the most undecided is taken."""
BATCH = 32
COLUMNS = ("neutrality", "≥ .9", "twin: neutrality", "p_y", "PSNR to x, dB", "mean abs", "s/image")


def main() -> None:
    """Print the table of docs/results.md; no test image is used."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="of a finished run: params.yaml, artifacts, data")
    parser.add_argument("--dataset", help="default: the first of params.yaml")
    parser.add_argument("--classifier", help="default: the first of params.yaml")
    parser.add_argument("--seed", type=int, default=0, help="of the decomposition (%(default)s)")
    parser.add_argument("--images", type=int, default=0, help="validation images; 0: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = Paths(args.folder)
    params = load_params(paths.params)
    dataset = args.dataset or next(iter(params.datasets))
    classifier = args.classifier or next(iter(params.classifiers))
    data = ShardedDataset(paths.dataset(dataset), "validation")
    seed, modules = params.evaluate.seed, params.modules
    explainer = DXAI.load(
        paths.decomposition(dataset, classifier, args.seed), seed, 1, modules, "cpu"
    )
    twin, _ = load_classifier(paths.classifier(dataset, classifier, "twin"), modules)
    naive = build_explainer("naive", explainer.classifier, params.methods.get("naive", {}), seed)
    indices = chosen_images(len(data), args.images)
    makers: dict[str, Callable[[Batch], Tensor]] = {
        "x": lambda batch: batch.images,
        "x - ψ₁": lambda batch: generated(explainer, batch).agnostic,
        "sum of the agnostic branches": lambda batch: generated(explainer, batch).psi[:, 1:].sum(1),
        "most undecided point of x - βψ₁": lambda batch: most_undecided(explainer, batch),
        "mixture with an image of each other class": lambda batch: mixed(explainer, data, batch),
        "`neutral`": lambda batch: (
            explainer.explain(batch.images, batch.labels, batch.index).agnostic
        ),
        "naive optimisation": lambda batch: (
            batch.images - naive.attribute(batch.images, batch.labels, batch.index)
        ),
    }
    print(f"{dataset}, {classifier}, seed {args.seed}: {len(indices)} validation images\n")
    print("| class-agnostic image |", " | ".join(COLUMNS), "|")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for name, maker in makers.items():
        values = measured(maker, data, indices.tolist(), explainer.classifier, twin)
        print(f"| {name} |", " | ".join(values), "|", flush=True)


def generated(explainer: DXAI, batch: Batch) -> Decomposition:
    """Return what the generator draws."""
    return explainer.explain(batch.images, batch.labels, batch.index, GENERATED)


@torch.no_grad()
def most_undecided(explainer: DXAI, batch: Batch) -> Tensor:
    """Return the point of x - beta psi_1 at which the classifier is least decided."""
    points = torch.stack(
        [*removal.remove(batch.images, generated(explainer, batch).distinct, BETAS)]
    )
    entropies = [removal.neutrality(explainer.classifier(x).softmax(1)) for x in points]
    return points[torch.stack(entropies).argmax(0), torch.arange(len(batch.ids))]


@torch.no_grad()
def mixed(explainer: DXAI, data: ShardedDataset, batch: Batch) -> Tensor:
    """Return the mixture with random images of the other classes that is least decided.

    It explains nothing, but shows how undecided two networks ever are of the same image.
    """
    draw, found = np.random.default_rng(batch.index.tolist()), []
    members = [np.flatnonzero(data.labels == k) for k in range(len(data.class_names))]
    for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
        others = [draw.choice(rows) for k, rows in enumerate(members) if k != label]
        parts = torch.cat([image[None], data.batch(others).images])
        weights = torch.from_numpy(draw.dirichlet(np.ones(len(parts)), MIXTURES)).float()
        mixtures = torch.einsum("mk,kchw->mchw", weights, parts)
        left = removal.neutrality(explainer.classifier(mixtures).softmax(1))
        found.append(mixtures[left.argmax()])
    return torch.stack(found)


@torch.no_grad()
def measured(
    maker: Callable[[Batch], Tensor],
    data: ShardedDataset,
    indices: list[int],
    classifier: nn.Module,
    twin: nn.Module,
) -> list[str]:
    """Return the cells of one row; seconds are the processor's, on one core."""
    spent = 0.0
    found: list[Tensor] = []
    for batch in data.batches(BATCH, indices):
        began = time.process_time()
        agnostic = maker(batch)
        spent += time.process_time() - began
        answer, other = (network(agnostic).softmax(1) for network in (classifier, twin))
        left = removal.neutrality(answer)
        numbers = [
            left,
            left >= removal.UNDECIDED,
            removal.neutrality(other),
            other.gather(1, batch.labels[:, None])[:, 0],
            removal.psnr(batch.images - agnostic),
            (batch.images - agnostic).abs().mean((1, 2, 3)),
        ]
        found.append(torch.stack([number.float() for number in numbers], 1))
    *shares, decibels, size = torch.cat(found).mean(0).tolist()
    changed = [f"{decibels:.1f}", f"{size:.3f}"] if size else ["", ""]
    return [*(f"{share:.3f}" for share in shares), *changed, f"{spent / len(indices):.3f}"]


if __name__ == "__main__":
    main()
