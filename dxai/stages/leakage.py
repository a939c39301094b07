"""Probe what class-agnostic images still say about the class: DVC stage `leakage`.

Images of the training set are explained by each method, a fresh network is trained to tell their
class from what is left of them, and is tested on what is left of test images. Images are explained
for the class that the classifier predicts, so that the label enters nowhere but through the image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    counts = [len(train.index), len(test.index)]
    for method, sign, removal in removals(subject) if settings.images else ():
        title = f"leakage {dataset} {classifier} {method} {sign}".rstrip()
        try:
            found = _probed(subject, removal, (train, test), title)
        except (Unsupported, RuntimeError) as reason:
            if method not in params.methods:
                raise
            print(f"{title}: left out: {reason}", flush=True)
            continue
        frames.append(test.frame(found).assign(method=method, sign=sign))
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


@dataclass(frozen=True)
class Split:
    """Images of one split, read when they are needed, and their predicted classes."""

    data: ShardedDataset
    index: np.ndarray
    predicted: Tensor
    batch_size: int

    def __iter__(self) -> Iterator[tuple[Batch, Tensor]]:
        batches = self.data.batches(self.batch_size, self.index)
        return zip(batches, self.predicted.split(self.batch_size), strict=True)

    @property
    def labels(self) -> np.ndarray:
        return self.data.labels[self.index]

    def frame(self, predictions: np.ndarray) -> pd.DataFrame:
        columns = {
            "index": self.index,
            "id": [self.data.ids[i] for i in self.index],
            "group": [self.data.groups[i] for i in self.index],
            "label": self.labels,
        }
        return pd.DataFrame(columns | {"prediction": predictions})


def _splits(subject: scoring.Subject) -> tuple[Split, Split]:
    """Return the training images and the test images of the probe; none if it is off."""
    settings, size = subject.params.leakage, subject.params.evaluate.batch_size

    def chosen(data: ShardedDataset, images: int) -> Split:
        index = spread_over_classes(data.labels, images or len(data))
        index = index if settings.images else index[:0]
        found = [subject.predicted(batch) for batch in data.batches(size, index)]
        return Split(data, index, torch.cat([torch.zeros(0, dtype=torch.int64), *found]), size)

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


def _probed(
    subject: scoring.Subject, removal: Removal, splits: tuple[Split, Split], title: str
) -> np.ndarray:
    """Train a probe on what is left of training images; its predictions for test images, (N,)."""
    train, test = splits
    progress = Progress(title, sum(len(split.index) for split in splits), unit="images")

    def left(split: Split) -> Iterator[Tensor]:
        for batch, target in split:
            yield removal(batch, target)
            progress.update(progress.done + len(batch.ids))

    images, labels = torch.cat(list(left(train))), torch.from_numpy(train.labels)
    classes, epochs = len(subject.data.class_names), subject.params.leakage.epochs
    probe = train_probe(images, labels, classes, epochs, subject.seed, subject.device)
    return np.concatenate([predict(probe, found) for found in left(test)])


if __name__ == "__main__":
    run_stage(main)
