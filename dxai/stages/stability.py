"""Measure how far the seeds of a decomposition agree: DVC stage `stability`.

Table 4 uses one frozen classifier, the same images and the same z; the decompositions of several
seeds at four points of their training, beside Grad-CAM and Internal Influence at three successive
layers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.explain.base import Explainer
from dxai.explain.decomposition import DXAI
from dxai.explain.model_surgery import frozen_copy
from dxai.explain.registry import build_explainer
from dxai.metrics.stability import deviation, pixel_deviation
from dxai.models.default_layers import sequential_layers
from dxai.models.serialization import load_decomposer, load_snapshots
from dxai.paths import HERE, IMAGES, MAPS, MODEL, SNAPSHOTS, STABILITY
from dxai.stages import run_stage, scoring
from dxai.types import Unsupported
from dxai.utils.files import atomic_folder, sha256, write_json

LAYERED = ("gradcam", "internal_influence")
SHOWN = 6
"""Number of images whose maps are saved for pictures."""
COLUMNS = ["method", "step", "index", "id", "group", "std", "normalised"]
"""Columns of images.parquet."""
PIXELS = "pixels"
Compared = dict[tuple[str, int | None], list[int]]
"""Method and step to the numbers of its pieces."""
Attribute = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Images, classes and indices to maps (B, 1 or C, H, W)."""


def main(dataset: str, classifier: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/stability/.

    It holds `images.parquet` (`std` and `normalised` by method, step and image), `maps.npz`
    (deviations of some images at each step) and `stability.json`.
    """
    work, compared, layers = _work(dataset, classifier)
    subject = work.subject
    pieces = scoring.in_pieces(work, ("dxai.stages.stability", (dataset, classifier)))
    columns = {
        "index": subject.chosen,
        "id": [subject.data.ids[i] for i in subject.chosen],
        "group": [subject.data.groups[i] for i in subject.chosen],
    }
    frames, maps = [], {}
    for (method, step), own in compared.items():
        if scoring.left_out(pieces, own, method):
            continue
        found = {key: np.concatenate([*pieces.maps(key, own)]) for key in ("std", "normalised")}
        frames.append(pd.DataFrame(columns | found).assign(method=method, step=step))
        if step is not None:
            shown = np.concatenate([*pieces.maps(PIXELS, own)])[:SHOWN]
            maps[f"step-{step}"] = shown.astype(np.float32)
    whole = pd.concat(frames, ignore_index=True)
    with atomic_folder(HERE.stability(dataset, classifier)) as temporary:
        whole = whole.astype({"step": "Int64"})[COLUMNS]
        whole.to_parquet(temporary / IMAGES, index=False)
        np.savez_compressed(temporary / MAPS, **maps)  # type: ignore[arg-type]
        write_json(
            temporary / STABILITY,
            {
                "dataset": dataset,
                "classifier": classifier,
                "profile": subject.params.profile,
                "seeds": subject.params.seeds_of(classifier),
                "layers": layers,
                "images": int(whole["index"].nunique()),
                "steps": [int(name.removeprefix("step-")) for name in maps],
            },
        )
    pieces.remove()


def item(dataset: str, classifier: str) -> scoring.Shares:
    """Return what is compared, here or by an actor on Ray."""
    return _work(dataset, classifier)[0]


def _work(dataset: str, classifier: str) -> tuple[scoring.Shares, Compared, list[str]]:
    """Return the item, the numbers of the pieces of each method and step, and the layers."""
    params = load_params()
    seeds = params.seeds_of(classifier)
    subject = scoring.subject(params, dataset, classifier, seeds[0], with_twin=False)
    folders = [HERE.decomposition(dataset, classifier, seed) for seed in seeds]
    layers = sequential_layers(frozen_copy(subject.classifier), subject.first.to(subject.device))
    batches = scoring.in_batches(subject, subject.chosen)
    shares: list[tuple[np.ndarray, scoring.Compute]] = []
    compared: Compared = {}

    @functools.lru_cache(1)  # pieces come in this order
    def explainers(method: str, step: int | None) -> list[Attribute]:
        if step is None:
            return layered(subject, method, layers)
        return decomposed(subject, folders, step)

    def add(method: str, step: int | None) -> None:
        compared[method, step] = [*range(len(shares), len(shares) + len(batches))]
        for number, index in enumerate(batches):
            pixels = step is not None and sum(map(len, batches[:number])) < SHOWN
            found = functools.partial(
                lambda *about: measured(subject, explainers(method, step), *about), index, pixels
            )
            optional = scoring.or_reason(found, Unsupported) if step is None else found
            shares.append((index, optional))

    kept = [[step for step, _ in load_snapshots(folder, params.modules)] for folder in folders]
    for steps in zip(*kept, strict=True):
        (step,) = set(steps)
        add("dxai", step)
    for method in LAYERED if layers else ():
        add(method, None)
    settings = [params.methods.get(method, {}) for method in LAYERED]
    hashes = [sha256(folder / name) for folder in folders for name in (MODEL, SNAPSHOTS)]
    title = f"stability {dataset} {classifier}"
    return scoring.Shares(subject, title, [settings, hashes], shares), compared, layers


def decomposed(subject: scoring.Subject, folders: list[Path], step: int) -> list[Attribute]:
    """Return what explains by the decomposition of each seed after a step of its training."""
    modules = subject.params.modules
    _, info, _, _ = load_decomposer(folders[0], modules)
    kept = [
        next(found for at, found in load_snapshots(folder, modules) if at == step)
        for folder in folders
    ]
    return [
        DXAI(decomposer, info, subject.classifier, subject.seed).to(subject.device).attribute
        for decomposer in kept
    ]


def layered(subject: scoring.Subject, method: str, layers: list[str]) -> list[Attribute]:
    """Return what makes the positive part of a method's maps at each layer."""

    def positive(explainer: Explainer) -> Attribute:
        return lambda *images: explainer.attribute(*images).clamp(min=0)

    settings = subject.params.methods.get(method, {})
    return [
        positive(
            build_explainer(method, subject.classifier, settings | {"layer": name}, subject.seed)
        )
        for name in layers
    ]


def measured(
    subject: scoring.Subject, explainers: Sequence[Attribute], index: np.ndarray, pixels: bool
) -> dict[str, np.ndarray]:
    """Compare several maps of each image.

    Returns
    -------
    dict
        `std` and `normalised` of each image, (B,); with `pixels` also `PIXELS`, the deviation of
        each pixel, (B, C, H, W).
    """
    batch = subject.data.batch(index)
    images = (batch.images, batch.labels, batch.index)
    maps = np.stack([explain(*images).numpy() for explain in explainers])
    std, normalised = deviation(maps)
    found = {"std": std, "normalised": normalised}
    return found | ({PIXELS: pixel_deviation(maps)} if pixels else {})


if __name__ == "__main__":
    run_stage(main, alone=True)
