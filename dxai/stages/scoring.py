"""What the two evaluating stages share: the images, the classifiers, and the files they write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dxai import stages
from dxai.config.schema import JOINT, Params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.metrics.localisation import Known
from dxai.metrics.scorer import CURVES, Scorer, chosen_images
from dxai.models.serialization import load_classifier, load_decomposer
from dxai.types import Batch
from dxai.utils.files import atomic_folder, write_json
from dxai.utils.progress import Progress


@dataclasses.dataclass(frozen=True)
class Subject:
    """The test images of a dataset, the classifier that is explained, and its twin."""

    params: Params
    dataset: str
    name: str
    data: ShardedDataset
    classifier: nn.Module
    twin: nn.Module | None

    @property
    def seed(self) -> int:
        """Of everything that is drawn while evaluating."""
        return self.params.evaluate.seed

    def scorer(self, curves: Sequence[str] = CURVES) -> Scorer:
        """A scorer for these images."""
        evaluate, names = self.params.evaluate, self.data.class_names
        return Scorer(self.classifier, self.twin, names, evaluate, self.seed, curves)

    def known(self, batch: Batch) -> Known:
        """What is known of the class-distinct parts of these images; NaN where it is not."""
        missing = torch.full_like(batch.images, torch.nan)
        masks, difference = missing[:, :1].clone(), missing
        places = batch.index.tolist()
        for kept, column in ((masks, "mask"), (difference, "neutral")):
            at = [i for i, place in enumerate(places) if self.data.encoded(place, column)]
            if not at:
                continue
            found = [places[i] for i in at]
            read = self.data.masks if column == "mask" else self.data.neutral
            kept[at] = read(found) if column == "mask" else batch.images[at] - read(found)
        return Known(masks, difference)

    def batches(self, title: str) -> Iterator[Batch]:
        """The chosen test images, with progress."""
        places = chosen_images(len(self.data), self.params.evaluate.images)
        progress = Progress(title, len(places), unit="images")
        done = 0
        for batch in self.data.batches(self.params.evaluate.batch_size, places):
            yield batch
            done += len(batch.ids)
            progress.update(done)


def subject(
    params: Params, dataset: str, classifier: str, seed: int, with_twin: bool = True
) -> Subject:
    """Load what is scored.

    `seed` names the decomposition whose discriminator is the classifier, for C = D.
    """
    params.dataset(dataset)
    data = ShardedDataset(stages.DATA / dataset, "test")
    root = stages.CLASSIFIERS / dataset / classifier
    if params.classifier_spec(classifier).arch == JOINT:
        trained = stages.DECOMPOSITIONS / dataset / classifier / str(seed)
        _, _, explained, info = load_decomposer(trained)
    else:
        explained, info = load_classifier(root / "explained")
    fitting = (data.class_names, data.image_size, data.channels)
    if (info["class_names"], info["image_size"], info["channels"]) != fitting:
        raise ValueError(f"{root}: trained for other classes or images than {dataset} has")
    has_twin = with_twin and (root / "twin" / "model.pt").exists()
    twin = load_classifier(root / "twin")[0] if has_twin else None
    return Subject(params, dataset, classifier, data, explained, twin)


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

    In it `outcomes.parquet` (images and levels), `images.parquet` (images), `attributions.npz`
    and `summary.json`.
    """
    params = subject.params
    with atomic_folder(out) as temporary:
        if scorer is not None:
            scorer.outcomes().to_parquet(temporary / "outcomes.parquet", index=False)
            scorer.images().to_parquet(temporary / "images.parquet", index=False)
            np.savez_compressed(temporary / "attributions.npz", **attributions)  # type: ignore[arg-type]
        write_json(
            temporary / "summary.json",
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
