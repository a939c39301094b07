"""Shared parts of the evaluating stages: images, classifiers, and the files they write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from dxai.config.schema import JOINT, Params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.metrics import smoothing
from dxai.metrics.localisation import GroundTruth
from dxai.metrics.scorer import CURVES, Scorer, chosen_images
from dxai.models.devices import choose_device, device_of, exact_float32
from dxai.models.serialization import load_classifier, load_decomposer
from dxai.paths import ATTRIBUTIONS, HERE, IMAGES, MODEL, OUTCOMES, SUMMARY
from dxai.types import Batch
from dxai.utils.files import atomic_folder, write_json
from dxai.utils.progress import Progress


@dataclasses.dataclass(frozen=True)
class Subject:
    """The test images of a dataset, the explained classifier, and its twin.

    Both networks are on the device of the setting; images come on the CPU, where results return.
    """

    params: Params
    dataset: str
    name: str
    data: ShardedDataset
    classifier: nn.Module
    twin: nn.Module | None

    @property
    def seed(self) -> int:
        """Seed of all random draws of the evaluation."""
        return self.params.evaluate.seed

    @property
    def device(self) -> torch.device:
        """The device that explanations and scores are computed on."""
        return device_of(self.classifier)

    def scorer(self, curves: Sequence[str] = CURVES) -> Scorer:
        evaluate, names = self.params.evaluate, self.data.class_names
        deviation = self.noise() if "smooth" in curves and evaluate.smooth else None
        return Scorer(self.classifier, self.twin, names, evaluate, self.seed, curves, deviation)

    @torch.no_grad()
    def predicted(self, batch: Batch) -> Tensor:
        """Return the classes that the classifier predicts, (B,), on the CPU."""
        with exact_float32():
            return self.classifier(batch.images.to(self.device)).argmax(1).cpu()

    def noise(self) -> float:
        """Return the deviation of the noise that the classifier stands on validation images."""
        data = ShardedDataset(HERE.dataset(self.dataset), "validation")
        indices = chosen_images(len(data), smoothing.IMAGES)
        batches = data.batches(self.params.evaluate.batch_size, indices)
        return smoothing.tolerated(self.classifier, batches, self.seed)

    def truth(self, batch: Batch) -> GroundTruth:
        """Return the known class-distinct parts of these images; NaN where unknown."""
        difference = torch.full_like(batch.images, torch.nan)
        masks = difference[:, :1].clone()
        indices = batch.index.tolist()

        def having(column: str) -> list[int]:
            return [row for row, i in enumerate(indices) if self.data.encoded(i, column)]

        if rows := having("mask"):
            masks[rows] = self.data.masks([indices[row] for row in rows])
        if rows := having("neutral"):
            neutral = self.data.neutral([indices[row] for row in rows])
            difference[rows] = batch.images[rows] - neutral
        return GroundTruth(masks, difference)

    def batches(self, title: str) -> Iterator[Batch]:
        """Yield the chosen test images and print progress."""
        indices = chosen_images(len(self.data), self.params.evaluate.images)
        progress = Progress(title, len(indices), unit="images")
        done = 0
        for batch in self.data.batches(self.params.evaluate.batch_size, indices):
            yield batch
            done += len(batch.ids)
            progress.update(done)


def subject(
    params: Params, dataset: str, classifier: str, seed: int, with_twin: bool = True
) -> Subject:
    """Load the images and classifiers of an evaluation.

    For C = D, `seed` names the decomposition whose discriminator is the classifier.
    """
    params.dataset(dataset)
    device = choose_device(params.evaluate.device, "evaluate.device")
    data = ShardedDataset(HERE.dataset(dataset), "test")
    if params.classifier_spec(classifier).arch == JOINT:
        trained = HERE.decomposition(dataset, classifier, seed)
        _, _, explained, info = load_decomposer(trained, params.modules)
    else:
        trained = HERE.classifier(dataset, classifier, "explained")
        explained, info = load_classifier(trained, params.modules)
    fitting = (data.class_names, data.image_size, data.channels)
    if (info["class_names"], info["image_size"], info["channels"]) != fitting:
        raise ValueError(f"{trained}: trained for other classes or images than {dataset} has")
    twin_path = HERE.classifier(dataset, classifier, "twin") / MODEL
    twin = None
    if with_twin and twin_path.exists():
        twin = load_classifier(twin_path, params.modules)[0].to(device)
    return Subject(params, dataset, classifier, data, explained.to(device), twin)


def write(
    out: Path,
    subject: Subject,
    seed: int,
    steps: int | None,
    rows: list[dict[str, Any]],
    scorer: Scorer | None,
    attributions: dict[str, np.ndarray],
    seconds: float,
) -> None:
    """Write one folder of results/outcomes/.

    It holds `outcomes.parquet` (images and levels), `images.parquet` (images), `attributions.npz`
    and `summary.json`.
    """
    params = subject.params
    with atomic_folder(out) as temporary:
        if scorer is not None:
            scorer.outcomes().to_parquet(temporary / OUTCOMES, index=False)
            scorer.images().to_parquet(temporary / IMAGES, index=False)
            np.savez_compressed(temporary / ATTRIBUTIONS, **attributions)  # type: ignore[arg-type]
        write_json(
            temporary / SUMMARY,
            {
                "dataset": subject.dataset,
                "classifier": subject.name,
                "seed": seed,
                "profile": params.profile,
                "steps": steps,
                "class_names": subject.data.class_names,
                "images": len(chosen_images(len(subject.data), params.evaluate.images)),
                "rows": rows,
                "seconds": seconds,
            },
        )


def write_images(
    folder: Path,
    frames: Sequence[pd.DataFrame],
    columns: list[str],
    name: str,
    about: dict[str, Any],
) -> None:
    """Write images.parquet, of the frames or empty, and the JSON file `name`: both or none."""
    whole = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    with atomic_folder(folder) as temporary:
        whole[columns].to_parquet(temporary / IMAGES, index=False)
        write_json(temporary / name, about)
