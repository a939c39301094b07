"""Measure how far the seeds of a decomposition agree: DVC stage `stability`.

Table 4 uses one frozen classifier, the same images and the same z; the decompositions of several
seeds at four points of their training, beside Grad-CAM and Internal Influence at three successive
layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

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
from dxai.paths import HERE, IMAGES, MAPS, STABILITY
from dxai.stages import run_stage, scoring
from dxai.types import Unsupported
from dxai.utils.files import atomic_folder, write_json

LAYERED = ("gradcam", "internal_influence")
SHOWN = 6
"""Number of images whose maps are saved for pictures."""
COLUMNS = ["method", "step", "index", "id", "group", "std", "normalised"]
"""Columns of images.parquet."""
Attribute = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Images, classes and indices to maps (B, 1 or C, H, W)."""


def main(dataset: str, classifier: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/stability/.

    It holds `images.parquet` (`std` and `normalised` by method, step and image), `maps.npz`
    (deviations of some images at each step) and `stability.json`.
    """
    params = load_params()
    seeds = params.seeds_of(classifier)
    subject = scoring.subject(params, dataset, classifier, seeds[0], with_twin=False)
    frames, maps = [], {}
    for step, explainers in decomposed(subject, seeds):
        frame, shown = measured(subject, explainers, f"step {step}")
        frames.append(frame.assign(method="dxai", step=step))
        maps[f"step-{step}"] = shown.astype(np.float32)
    layers = sequential_layers(frozen_copy(subject.classifier), subject.first.to(subject.device))
    for method in LAYERED if layers else ():
        try:
            frame, _ = measured(subject, layered(subject, method, layers), method)
            frames.append(frame.assign(method=method, step=None))
        except Unsupported as reason:
            print(f"{method}: unsupported: {reason}", flush=True)
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
                "profile": params.profile,
                "seeds": seeds,
                "layers": layers,
                "images": int(whole["index"].nunique()),
                "steps": [int(name.removeprefix("step-")) for name in maps],
            },
        )


def decomposed(subject: scoring.Subject, seeds: list[int]) -> Iterator[tuple[int, list[Attribute]]]:
    """Yield each saved step with what explains by the decomposition of each seed."""
    folders = [HERE.decomposition(subject.dataset, subject.name, seed) for seed in seeds]
    modules = subject.params.modules
    _, info, _, _ = load_decomposer(folders[0], modules)
    kept = [load_snapshots(folder, modules) for folder in folders]
    for snapshots in zip(*kept, strict=True):
        (step,) = {step for step, _ in snapshots}
        explainers = [
            DXAI(decomposer, info, subject.classifier, subject.seed).to(subject.device)
            for _, decomposer in snapshots
        ]
        yield step, [explainer.attribute for explainer in explainers]


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
    subject: scoring.Subject, explainers: Sequence[Attribute], what: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Compare several maps of each image, a batch at a time.

    Returns
    -------
    frame : DataFrame
        `index`, `id`, `group`, `std` and `normalised` of each image.
    shown : ndarray
        The deviation of each pixel of the first `SHOWN` images, (SHOWN, C, H, W).
    """
    frames: list[pd.DataFrame] = []
    shown: list[np.ndarray] = []
    for batch in subject.batches(f"stability {subject.dataset} {subject.name} {what}"):
        images = (batch.images, batch.labels, batch.index)
        maps = np.stack([explain(*images).numpy() for explain in explainers])
        std, normalised = deviation(maps)
        columns = {"index": batch.index.numpy(), "id": batch.ids, "group": batch.groups}
        frames.append(pd.DataFrame({**columns, "std": std, "normalised": normalised}))
        if sum(map(len, shown)) < SHOWN:
            shown.append(pixel_deviation(maps))
    return pd.concat(frames, ignore_index=True), np.concatenate(shown)[:SHOWN]


if __name__ == "__main__":
    run_stage(main)
