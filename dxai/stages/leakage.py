"""Probe what class-agnostic images still say about the class: DVC stage `leakage`.

Images of the training set are explained by each method, a fresh network is trained to tell their
class from what is left of them, and is tested on what is left of test images. Images are explained
for the class that the classifier predicts, so that the label enters nowhere but through the image.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.paths import HERE, LEAKAGE, MODEL
from dxai.stages import run_stage, scoring
from dxai.stages.pieces import Pieces
from dxai.training.probe import predict, spread_over_classes, train_probe
from dxai.types import GENERATED, NEUTRAL, Batch, Unsupported
from dxai.utils.files import sha256

Removal = Callable[[Batch, Tensor], Tensor]
"""Images and the classes to explain (B,) to what is left without these: (B, C, H, W)."""
LEFT = "left"
COLUMNS = ["method", "sign", "index", "id", "group", "label", "prediction"]
"""Columns of images.parquet: the probe's prediction for each test image and method."""


def main(dataset: str, classifier: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/leakage/.

    It holds `images.parquet`, empty if the probe is off, and `leakage.json`. A baseline that does
    not apply to the classifier, or breaks, is left out; Table 1 has the reason.
    """
    began, work = time.monotonic(), item(dataset, classifier)
    params, seed = work.subject.params, work.subject.params.seeds[0]
    train, test = work.splits
    counts, frames = [len(train.index), len(test.index)], []
    pieces = None
    if work.shares:
        pieces = scoring.in_pieces(work, ("dxai.stages.leakage", (dataset, classifier)))
        for (method, sign), own in work.methods.items():
            title = f"leakage {dataset} {classifier} {method} {sign}".rstrip()
            try:
                if scoring.left_out(pieces, own, title):
                    continue
                found = _probed(work, pieces, own)
            except RuntimeError as reason:
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
    if pieces is not None:
        pieces.remove()


@dataclass(frozen=True)
class Split:
    """The images of one split, read when they are needed."""

    data: ShardedDataset
    index: np.ndarray

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


@dataclass(frozen=True)
class Work(scoring.Shares):
    """What each method leaves of images, a piece for each batch.

    Attributes
    ----------
    splits : tuple of Split
        The training images and the test images of the probe; none if it is off.
    methods : dict
        Method and its sign to the numbers of its pieces: the training images', then the others.
    """

    splits: tuple[Split, Split]
    methods: dict[tuple[str, str], list[int]]


def item(dataset: str, classifier: str) -> Work:
    """Return what is explained, here or by an actor on Ray."""
    params = load_params()
    settings = params.leakage
    subject = scoring.subject(params, dataset, classifier, params.seeds[0], with_twin=False)

    def chosen(data: ShardedDataset, images: int) -> Split:
        index = spread_over_classes(data.labels, images or len(data))
        return Split(data, index if settings.images else index[:0])

    train = chosen(ShardedDataset(HERE.dataset(dataset), "train"), settings.images)
    test = chosen(subject.data, settings.test_images)
    shares: list[tuple[np.ndarray, scoring.Compute]] = []
    methods: dict[tuple[str, str], list[int]] = {}
    for method, sign, removal in removals(subject) if settings.images else ():
        methods[method, sign] = []
        for split in (train, test):
            for index in scoring.in_batches(subject, split.index):
                compute: scoring.Compute
                compute = functools.partial(_left, subject, split.data, index, removal)
                if method in params.methods:
                    compute = scoring.or_reason(compute, Unsupported, RuntimeError)
                methods[method, sign].append(len(shares))
                shares.append((index, compute))
    trained = HERE.decomposition(dataset, classifier, params.seeds[0]) / MODEL
    used = {name: params.methods.get(name) for name in (settings.heatmap, "naive")}
    decisive = [settings.model_dump(), used, sha256(trained)]
    title = f"leakage {dataset} {classifier}"
    return Work(subject, title, decisive, shares, (train, test), methods)


def _left(
    subject: scoring.Subject, data: ShardedDataset, index: np.ndarray, removal: Removal
) -> dict[str, np.ndarray]:
    batch = data.batch(index)
    return {LEFT: removal(batch, subject.predicted(batch)).numpy()}


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

    def agnostic(batch: Batch, target: Tensor) -> Tensor:
        found = explainer.attribute(batch.images, target, batch.index).detach()
        _, _, distinct = next(explainer.by_sign(found, batch.images))
        return batch.images - distinct

    yield method, explainer.signs[0], agnostic


def _probed(work: Work, pieces: Pieces, own: list[int]) -> np.ndarray:
    """Train a probe on what is left of training images; its predictions for test images, (N,)."""
    subject, (train, _) = work.subject, work.splits
    left = map(torch.from_numpy, pieces.maps(LEFT, own))
    count = len(scoring.in_batches(subject, train.index))
    images, labels = torch.cat([*islice(left, count)]), torch.from_numpy(train.labels)
    classes, epochs = len(subject.data.class_names), subject.params.leakage.epochs
    probe = train_probe(images, labels, classes, epochs, subject.seed, subject.device)
    return np.concatenate([predict(probe, found) for found in left])


if __name__ == "__main__":
    run_stage(main, alone=True)
