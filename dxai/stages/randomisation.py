"""Compare explanations with those of a classifier whose weights are random: `randomisation`.

The model randomisation test (Adebayo et al. 2018, "Sanity checks for saliency maps",
arXiv:1810.03292). Layers are drawn anew from the top, and the heatmaps of test images compared with
those of the trained classifier at several depths. Ours has to be trained for a classifier: of two
short trainings that differ in nothing but their classifier, the trained one or the one with all
layers drawn anew, each is compared with the ordinary decomposition.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from torch import nn

from dxai.config.params_file import load_params
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain.base import Explainer
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.metrics.scorer import chosen_images
from dxai.metrics.similarity import rank_correlation, structural_similarity
from dxai.models.randomised import cascade, drawn_layers
from dxai.models.serialization import load_classifier, save_classifier
from dxai.paths import HERE, MODEL, RANDOMISATION
from dxai.stages import run_stage, scoring
from dxai.stages.pieces import Pieces
from dxai.stages.training import trained
from dxai.training.decomposition import DecompositionJob
from dxai.types import Batch, Unsupported
from dxai.utils.files import digest

COLUMNS = ["method", "layers", "index", "id", "group", "rank", "ssim", "size"]
"""Columns of images.parquet: the layers drawn anew, the similarity of an image's two maps, and the
mean |map| with the random weights divided by that without. Ours with 0 layers: a short training for
the trained classifier."""
EXPLAINED = "explained"
LAST_ONLY = ("naive", "lime")
"""Slow methods, which are compared only with the classifier of which every layer is random."""


def main(dataset: str, classifier: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/randomisation/.

    It holds `images.parquet`, empty if the test is off or the network cannot be drawn anew, and
    `randomisation.json`. A baseline that does not apply to one of the classifiers, or breaks, is
    left out; Table 1 has the reason.
    """
    began, (work, layers, changed) = time.monotonic(), _work(dataset, classifier)
    subject, batches = work.subject, work.batches
    params, seed = subject.params, subject.seed
    frames: list[pd.DataFrame] = []
    pieces = None
    title, steps = work.title, 0
    with ExitStack() as trainings:
        if layers:
            pieces = scoring.in_pieces(work, ("dxai.stages.randomisation", (dataset, classifier)))
            frames += _baselines(work, pieces)
            steps = params.randomisation_steps(dataset, classifier)
            if steps:
                model = HERE.decomposition(dataset, classifier, params.seeds[0])
                latents, device = params.evaluate.latents, subject.device
                ordinary = DXAI.load(model, seed, latents, params.modules, device)
                before = _maps(ordinary, batches)
                pair = {"trained": (0, subject.classifier), "random": changed[-1]}
                for what, (count, network) in pair.items():
                    short = _trained(subject, network, f"{title} {what}", steps, trainings)
                    frames.append(_frame("dxai", count, batches, before, _maps(short, batches)))
        about = {
            "dataset": dataset,
            "classifier": classifier,
            "seed": params.seeds[0],
            "profile": params.profile,
            "steps": steps,
            "of_layers": len(layers),
            "images": sum(len(batch.ids) for batch in batches) if layers else 0,
            "seconds": time.monotonic() - began,
        }
        folder = HERE.randomisation(dataset, classifier)
        scoring.write_images(folder, frames, COLUMNS, RANDOMISATION, about)
        if pieces is not None:
            pieces.remove()


@dataclass(frozen=True)
class Work(scoring.Shares):
    """The maps of each method for the classifier and for ever more random ones, a piece each.

    Attributes
    ----------
    batches : list of Batch
        All images.
    methods : dict
        Each method to the numbers of its pieces, by how many layers are drawn anew.
    """

    batches: list[Batch]
    methods: dict[str, dict[int, int]]


def item(dataset: str, classifier: str) -> Work:
    """Return what is explained, here or by an actor on Ray."""
    return _work(dataset, classifier)[0]


def _work(dataset: str, classifier: str) -> tuple[Work, list[str], list[tuple[int, nn.Module]]]:
    """Return the item, the layers, and the classifiers with their numbers of random layers."""
    params, layers = load_params(), list[str]()
    settings, title = params.randomisation, f"randomisation {dataset} {classifier}"
    subject = scoring.subject(params, dataset, classifier, params.seeds[0], with_twin=False)
    batches: list[Batch] = []
    if settings.images:
        indices = chosen_images(len(subject.data), settings.images)
        batches = list(subject.data.batches(params.evaluate.batch_size, indices))
        try:
            layers = drawn_layers(subject.classifier, batches[0].images[:1])
        except Unsupported as reason:
            print(f"{title}: left out: {reason}", flush=True)
    changed = []
    if layers:
        changed = list(cascade(subject.classifier, layers, settings.depths, subject.seed))
    shares: list[tuple[np.ndarray, scoring.Compute]] = []
    methods: dict[str, dict[int, int]] = {}
    for method in params.methods if layers else ():
        depths = changed[-1:] if method in LAST_ONLY else changed
        methods[method] = {}
        for count, network in ((0, subject.classifier), *depths):
            methods[method][count] = len(shares)
            compute = functools.partial(_explained, subject, method, network, batches)
            shares.append((indices, scoring.or_reason(compute, Unsupported, RuntimeError)))
    decisive = [settings.model_dump(), dict(params.methods)]
    return Work(subject, title, decisive, shares, batches, methods), layers, changed


def _explained(
    subject: scoring.Subject, method: str, network: nn.Module, batches: list[Batch]
) -> dict[str, np.ndarray]:
    settings = subject.params.methods[method]
    explainer = build_explainer(method, network, settings, subject.seed)
    return {EXPLAINED: _maps(explainer, batches)}


def _baselines(work: Work, pieces: Pieces) -> Iterator[pd.DataFrame]:
    """Compare each method's maps of the classifier with those of ever more random ones."""
    for method, own in work.methods.items():
        if scoring.left_out(pieces, own.values(), f"{work.title} {method}"):
            continue
        before, *others = pieces.maps(EXPLAINED, own.values())
        for count, after in zip([*own][1:], others, strict=True):
            yield _frame(method, count, work.batches, before, after)


def _trained(
    subject: scoring.Subject, network: nn.Module, title: str, steps: int, trainings: ExitStack
) -> DXAI:
    """Train a decomposition of `network` shortly; its checkpoint stays until `trainings` ends."""
    params, names = subject.params, (subject.dataset, subject.name)
    seed, modules = params.seeds[0], (params.classifier_spec(subject.name).arch,)
    settings = params.decompose_for(*names).replace(steps=steps)
    folder = HERE.dataset(subject.dataset)
    data = ShardedDataset(folder, "train")
    _, info = load_classifier(HERE.classifier(*names, "explained") / MODEL, modules)
    with TemporaryDirectory() as temporary:
        save_classifier(Path(temporary) / MODEL, copy.deepcopy(network).cpu(), info)
        frozen = (Path(temporary) / MODEL).read_bytes()
    job = DecompositionJob(str(folder.absolute()), settings, frozen, seed, modules)
    decisive = [settings, digest([frozen.hex()]), seed]
    state, _ = trainings.enter_context(trained(job, title, folder, decisive, params.training))
    networks = job.networks(data)
    networks.load_state_dict(state["networks"])
    about = {
        "class_names": data.class_names,
        "channels": data.channels,
        "image_size": data.image_size,
    }
    latents = params.evaluate.latents
    return DXAI(networks.average, about, network, subject.seed, latents).to(subject.device)


def _maps(explainer: Explainer, batches: list[Batch]) -> np.ndarray:
    """Return the maps of all images for their own classes, (N, 1 or C, H, W)."""
    found = [
        explainer.attribute(batch.images, batch.labels, batch.index).numpy() for batch in batches
    ]
    return np.concatenate(found)


def _frame(
    method: str, layers: int, batches: list[Batch], before: np.ndarray, after: np.ndarray
) -> pd.DataFrame:
    sizes = [np.abs(maps).mean((1, 2, 3)) for maps in (before, after)]
    columns = {
        "method": method,
        "layers": layers,
        "index": np.concatenate([batch.index.numpy() for batch in batches]),
        "id": [name for batch in batches for name in batch.ids],
        "group": [name for batch in batches for name in batch.groups],
        "rank": rank_correlation(before, after),
        "ssim": structural_similarity(before, after),
        "size": np.divide(sizes[1], sizes[0], where=sizes[0] > 0, out=np.full(len(before), np.nan)),
    }
    return pd.DataFrame(columns)


if __name__ == "__main__":
    run_stage(main, alone=True)
