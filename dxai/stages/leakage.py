"""Probe what class-agnostic images still say about the class: DVC stage `leakage`.

Images of the training set are explained by each method, a fresh network is trained to tell their
class from what is left of them, and is tested on what is left of test images. Images are explained
for the class that the classifier predicts, so that the label enters nowhere but through the image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.metrics.removal import distinct_from_heatmap
from dxai.paths import HERE, LEAKAGE
from dxai.stages import run_stage, scoring
from dxai.training.probe import predict, spread_over_classes, train_probe
from dxai.types import GENERATED, NEUTRAL, Batch, Unsupported
from dxai.utils.progress import Progress

Removal = Callable[[Batch, Tensor], Tensor]
"""Images and the classes to explain (B,) to what is left without these: (B, C, H, W)."""
Split = list[tuple[Batch, Tensor]]
"""Batches with the predicted classes (B,)."""
COLUMNS = ["method", "sign", "index", "id", "group", "label", "prediction"]
"""Columns of images.parquet: the probe's prediction for each test image and method."""


def main(dataset: str, classifier: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/leakage/.

    It holds `images.parquet`, empty if the probe is off, and `leakage.json`. A baseline that does
    not apply to the classifier, or breaks, is left out; Table 1 has the reason.
    """
    params, began = load_params(), time.monotonic()
    settings, seed = params.leakage, params.seeds[0]
    subject = scoring.subject(params, dataset, classifier, seed, with_twin=False)
    (train, test), frames = _splits(subject), []
    counts = [sum(len(batch.ids) for batch, _ in split) for split in (train, test)]
    for method, sign, removal in removals(subject) if settings.images else ():
        title = f"leakage {dataset} {classifier} {method} {sign}".rstrip()
        try:
            progress = Progress(title, sum(counts), unit="images")
            images, tested = _left(removal, (train, test), progress)
        except (Unsupported, RuntimeError) as reason:
            if method not in params.methods:
                raise
            print(f"{title}: left out: {reason}", flush=True)
            continue
        labels = torch.cat([batch.labels for batch, _ in train])
        classes = len(subject.data.class_names)
        epochs, device = settings.epochs, subject.device
        probe = train_probe(images, labels, classes, epochs, subject.seed, device)
        found = predict(probe, tested)
        frames.append(_frame(test, found).assign(method=method, sign=sign))
    about = {
        "dataset": dataset,
        "classifier": classifier,
        "seed": seed,
        "profile": params.profile,
        "train_images": counts[0],
        "images": counts[1],
        "seconds": time.monotonic() - began,
    }
    scoring.write_images(HERE.leakage(dataset, classifier), frames, COLUMNS, LEAKAGE, about)


@torch.no_grad()
def _splits(subject: scoring.Subject) -> tuple[Split, Split]:
    """Return the training images and the test images of the probe; none if it is off."""
    settings, size = subject.params.leakage, subject.params.evaluate.batch_size
    if not settings.images:
        return [], []

    def chosen(data: ShardedDataset, images: int) -> Split:
        indices = spread_over_classes(data.labels, images or len(data))
        batches = data.batches(size, indices)
        return [(batch, subject.predicted(batch)) for batch in batches]

    train = ShardedDataset(HERE.dataset(subject.dataset), "train")
    return chosen(train, settings.images), chosen(subject.data, settings.test_images)


def removals(subject: scoring.Subject) -> Iterator[tuple[str, str, Removal]]:
    """Yield each method, its kind of part or rule for the sign, and what it leaves of images.

    First the image itself, which bounds what a probe of this size can find.
    """
    params = subject.params
    yield "image", "", lambda batch, target: batch.images
    trained = HERE.decomposition(subject.dataset, subject.name, params.seeds[0])
    latents, device = params.evaluate.latents, subject.device
    ours = DXAI.load(trained, subject.seed, latents, params.modules, device)
    for kind in (GENERATED, NEUTRAL):

        def agnostic(batch: Batch, target: Tensor, kind: str = kind) -> Tensor:
            return ours.explain(batch.images, target, batch.index, kind).agnostic

        yield "dxai", kind, agnostic
    for method in (params.leakage.heatmap, "naive"):
        if method in params.methods:
            yield from _baseline(subject, method)


def _baseline(subject: scoring.Subject, method: str) -> Iterator[tuple[str, str, Removal]]:
    """Yield another method under its own rule for the sign: x - w x of a heatmap, else x - psi."""
    settings = subject.params.methods[method]
    try:
        explainer = build_explainer(method, subject.classifier, settings, subject.seed)
    except Unsupported as reason:
        print(f"leakage {subject.dataset} {subject.name} {method}: left out: {reason}", flush=True)
        return
    sign = explainer.signs[0]

    def agnostic(batch: Batch, target: Tensor) -> Tensor:
        found = explainer.attribute(batch.images, target, batch.index).detach()
        if explainer.kind == "heatmap":
            found = distinct_from_heatmap(found, batch.images, sign)
        return batch.images - found

    yield method, sign, agnostic


def _left(removal: Removal, splits: tuple[Split, Split], progress: Progress) -> list[Tensor]:
    """Return what a method leaves of the images of each split, (N, C, H, W)."""
    found, done = [], 0
    for split in splits:
        parts = []
        for batch, target in split:
            parts.append(removal(batch, target))
            done += len(batch.ids)
            progress.update(done)
        found.append(torch.cat(parts))
    return found


def _frame(split: Split, predictions: np.ndarray) -> pd.DataFrame:
    batches = [batch for batch, _ in split]
    columns = {
        "index": np.concatenate([batch.index.numpy() for batch in batches]),
        "id": [name for batch in batches for name in batch.ids],
        "group": [name for batch in batches for name in batch.groups],
        "label": np.concatenate([batch.labels.numpy() for batch in batches]),
    }
    return pd.DataFrame(columns | {"prediction": predictions})


if __name__ == "__main__":
    run_stage(main)
