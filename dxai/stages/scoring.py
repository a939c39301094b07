"""Shared parts of the evaluating stages: images, classifiers, and the files they write."""

from __future__ import annotations

import abc
import dataclasses
import functools
import importlib.metadata
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from dxai.paths import HERE, IMAGES, MANIFEST, MODEL, SUMMARY
from dxai.stages.network import hashes
from dxai.stages.pieces import Pieces, Source
from dxai.types import Batch
from dxai.utils import addresses
from dxai.utils.files import atomic_folder, digest, folder_digest, sha256, write_json
from dxai.utils.progress import Progress

if TYPE_CHECKING:
    from dxai.explain.base import Explainer

Explain = Callable[[Batch], tuple[dict[str, Tensor], float]]
"""Explains and scores a batch: maps (B, C, H, W) by name, and the seconds that explaining took."""
Compute = Callable[[], dict[str, np.ndarray]]
OURS = "dxai"
"""The map that Table 3 scores."""
LEFT_OUT = "left out"
"""Array of a piece whose method failed: the reason."""
CODE = Path(__file__).parents[1]
"""The package, all of which counts: which part decides a score is not known."""
SHORT = 30.0
"""Seconds of work that are done sooner in this process than Ray starts."""
PACKAGES = ("torch", "numpy", "scipy", "captum", "scikit-image", "scikit-learn")
"""Packages that numbers depend on."""


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
    files: tuple[Path, ...] = ()
    """The model files that they come from."""

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
        size = self.params.evaluate.batch_size
        batches = functools.partial(data.batches, size, indices)
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

    @property
    def chosen(self) -> np.ndarray:
        """The indices of the images that are scored."""
        return chosen_images(len(self.data), self.params.evaluate.images)

    @property
    def first(self) -> Tensor:
        """The first of these images, (1, C, H, W)."""
        return self.data.batch(self.chosen[:1]).images


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
    files = (trained / MODEL, *([twin_path] if twin is not None else []))
    return Subject(params, dataset, classifier, data, explained.to(device), twin, files)


class Piecewise(abc.ABC):
    """A stage item whose work is done in pieces, each a file.

    Attributes
    ----------
    subject : Subject
        Images and classifiers.
    title : str
        The stage and its arguments.
    decisive : list
        Values that decide the pieces besides subject, settings of `evaluate` and code.
    """

    subject: Subject
    title: str
    decisive: list[Any]

    @property
    @abc.abstractmethod
    def parts(self) -> list[np.ndarray]:
        """The indices of the images of each piece."""

    @abc.abstractmethod
    def score(self, k: int) -> None:
        """Make piece `k` and save it."""

    @functools.cached_property
    def pieces(self) -> Pieces:
        """What is done so far, maybe by an earlier run that was killed."""
        folder = HERE.scoring(self.title) / _fingerprint(self.subject, self.decisive)
        return Pieces(folder, len(self.parts))


@dataclasses.dataclass(frozen=True)
class Item(Piecewise):
    """A stage item that explains and scores images, a piece for each batch of them.

    Attributes
    ----------
    scorer : Scorer
        What `explain` adds its scores to.
    explain : callable
        Explains and scores one batch.
    explainer : Explainer, optional
        What it explains with.
    """

    subject: Subject
    title: str
    scorer: Scorer
    decisive: list[Any]
    explain: Explain
    explainer: Explainer | None = None

    @functools.cached_property
    def parts(self) -> list[np.ndarray]:
        return in_batches(self.subject, self.subject.chosen)

    def score(self, k: int) -> None:
        maps, seconds = self.explain(self.subject.data.batch(self.parts[k]))
        kept = {name: _kept(name, value, self.subject.params) for name, value in maps.items()}
        stored = {name: value for name, value in kept.items() if value is not None}
        self.pieces.save(k, self.parts[k], self.scorer.take(), stored, seconds)


@dataclasses.dataclass(frozen=True)
class Shares(Piecewise):
    """A stage item that computes arrays which the stage goes on with.

    Attributes
    ----------
    shares : list
        For each piece, the indices of its images and what computes its arrays, by name.
    """

    subject: Subject
    title: str
    decisive: list[Any]
    shares: list[tuple[np.ndarray, Compute]]

    @property
    def parts(self) -> list[np.ndarray]:
        return [index for index, _ in self.shares]

    def score(self, k: int) -> None:
        index, compute = self.shares[k]
        began = time.perf_counter()
        self.pieces.save(k, index, (), compute(), time.perf_counter() - began)


def in_batches(subject: Subject, index: np.ndarray) -> list[np.ndarray]:
    """Split indices of images as `evaluate.batch_size` says."""
    size = subject.params.evaluate.batch_size
    return [index[first : first + size] for first in range(0, len(index), size)]


def or_reason(compute: Compute, *errors: type[Exception]) -> Compute:
    """Let `LEFT_OUT`, the reason, take the place of the arrays of a method that fails."""

    def found() -> dict[str, np.ndarray]:
        try:
            return compute()
        except errors as reason:
            return {LEFT_OUT: np.array(str(reason))}

    return found


def left_out(pieces: Pieces, which: Iterable[int], title: str) -> bool:
    """Whether one of these pieces failed; print the reason."""
    for reason in pieces.maps(LEFT_OUT, which):
        print(f"{title}: left out: {reason}", flush=True)
        return True
    return False


def in_pieces(item: Piecewise, remote: Source | None = None) -> Pieces:
    """Score all pieces of an item that are missing, here or on Ray; return all.

    `remote` tells the actors of Ray how to make the item; without it, and where what is left takes
    less time than Ray to start, the pieces are scored here.
    """
    params, pieces, parts = item.subject.params, item.pieces, item.parts
    pieces.start()
    total = sum(map(len, parts))
    progress = Progress(item.title, total, 0, "images")
    on_ray = remote if params.evaluation.executor == "ray" else None

    def left() -> list[int]:
        found = [k for k in range(len(parts)) if not pieces.has(k)]
        if (done := total - sum(len(parts[k]) for k in found)) > progress.done:
            progress.update(done)
        return found

    waiting = left()
    if progress.done:
        print(f"{item.title}: {progress.done} of {total} images were scored before", flush=True)
        progress = Progress(item.title, total, progress.done, "images")
    # On another cluster the device may be another one, too.
    while waiting and not (on_ray and addresses.given_cluster()):
        item.score(waiting[0])
        waiting = left()
        each = progress.seconds / (progress.done - progress.start)
        if on_ray and each * (total - progress.done) > SHORT:
            break
    if on_ray and waiting:
        from dxai.stages import actors  # it loads what trainings run with

        actors.score(on_ray, params.evaluation, params.evaluate.device, pieces, left)
    return pieces


def _kept(name: str, value: Tensor, params: Params) -> np.ndarray | None:
    """Return a map as the setting keeps it; None if it is not kept."""
    if params.evaluate.maps == "float32" or name == OURS:
        return value.numpy()
    return value.numpy().astype(np.float16) if params.evaluate.maps == "float16" else None


def _fingerprint(subject: Subject, decisive: list[Any]) -> str:
    """Hash all that the scores of a piece depend on."""
    params, spec = subject.params, subject.params.classifier_spec(subject.name)
    return digest(
        [
            params.evaluate.model_dump(),
            str(subject.device) if params.evaluation.executor == "local" else "",
            (HERE.dataset(subject.dataset) / MANIFEST).read_text(),
            [sha256(path) for path in subject.files],
            hashes(subject.name, spec.files),
            folder_digest(CODE, "*.py"),
            [_version(name) for name in PACKAGES],
            *decisive,
        ]
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(
    out: Path,
    subject: Subject,
    seed: int,
    steps: int | None,
    rows: list[dict[str, Any]],
    pieces: Pieces | None,
    seconds: float,
) -> None:
    """Write one folder of results/outcomes/, and remove the pieces that it is made of.

    It holds `outcomes.parquet` (images and levels), `images.parquet` (images), `attributions.npz`
    and `summary.json`.
    """
    params = subject.params
    with atomic_folder(out) as temporary:
        if pieces is not None:
            pieces.write(temporary)
        write_json(
            temporary / SUMMARY,
            {
                "dataset": subject.dataset,
                "classifier": subject.name,
                "seed": seed,
                "profile": params.profile,
                "steps": steps,
                "class_names": subject.data.class_names,
                "images": len(subject.chosen),
                "rows": rows,
                "seconds": seconds,
            },
        )
    if pieces is not None:
        pieces.remove()


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
