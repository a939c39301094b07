"""What the two evaluating stages share: the images, the classifiers, and the files they write."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from dxai import stages
from dxai.datasets.shards import ShardedDataset
from dxai.evaluate.scores import Scorer, chosen_images
from dxai.files import atomic_folder, write_json
from dxai.models.checkpoint import load_classifier, load_decomposer
from dxai.params import JOINT, Params
from dxai.progress import Progress
from dxai.types import Batch


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

    def scorer(self) -> Scorer:
        """A scorer for these images."""
        evaluate = self.params.evaluate
        return Scorer(self.classifier, self.twin, self.data.class_names, evaluate, self.seed)

    def batches(self, title: str) -> Iterator[Batch]:
        """The chosen test images, with progress."""
        places = chosen_images(len(self.data), self.params.evaluate.images)
        progress = Progress(title, len(places), unit="images")
        done = 0
        for batch in self.data.batches(self.params.evaluate.batch_size, places):
            yield batch
            done += len(batch.ids)
            progress.update(done)


def subject(params: Params, dataset: str, classifier: str, seed: int) -> Subject:
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
    has_twin = (root / "twin" / "model.pt").exists()
    twin = load_classifier(root / "twin")[0] if has_twin else None
    return Subject(params, dataset, classifier, data, explained, twin)


def write(
    out: Path,
    subject: Subject,
    seed: int,
    rows: list[dict[str, Any]],
    scorer: Scorer | None,
    attributions: dict[str, np.ndarray],
    seconds: float,
) -> None:
    """Write one folder of results/outcomes/: outcomes.parquet, attributions.npz, summary.json."""
    params = subject.params
    with atomic_folder(out) as temporary:
        if scorer is not None:
            scorer.outcomes().to_parquet(temporary / "outcomes.parquet", index=False)
            np.savez_compressed(temporary / "attributions.npz", **attributions)  # type: ignore[arg-type]
        write_json(
            temporary / "summary.json",
            {
                "dataset": subject.dataset,
                "classifier": subject.name,
                "seed": seed,
                "profile": params.profile,
                "steps": params.decompose_for(subject.dataset).steps,
                "class_names": subject.data.class_names,
                "images": len(chosen_images(len(subject.data), params.evaluate.images)),
                "rows": rows,
                "seconds": seconds,
            },
        )
