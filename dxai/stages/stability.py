"""Measure how far the seeds of a decomposition agree: DVC stage `stability`.

Table 4 uses one frozen classifier, the same images and the same z; the decompositions of several
seeds at four points of their training, beside Grad-CAM and Internal Influence at three successive
layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.explain.base import Explainer
from dxai.explain.decomposition import DXAI
from dxai.explain.model_surgery import frozen_copy
from dxai.explain.registry import build_explainer
from dxai.metrics.scorer import chosen_images
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


def main(dataset: str, classifier: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/stability/.

    It holds `images.parquet` (`std` and `normalised` by method, step and image), `maps.npz`
    (deviations of some images at each step) and `stability.json`.
    """
    params = load_params()
    seeds = params.seeds_of(classifier)
    subject = scoring.subject(params, dataset, classifier, seeds[0], with_twin=False)
    frames, maps = [], {}
    for step, found in decomposed(subject, seeds):
        frames.append(_frame(subject, "dxai", step, found))
        maps[f"step-{step}"] = pixel_deviation(found[:, :SHOWN]).astype(np.float32)
    image = next(subject.batches("layers")).images[:1]
    layers = sequential_layers(frozen_copy(subject.classifier), image.to(subject.device))
    for method in LAYERED if layers else ():
        try:
            frames.append(_frame(subject, method, None, layered(subject, method, layers)))
        except Unsupported as reason:
            print(f"{method}: unsupported: {reason}", flush=True)
    whole = pd.concat(frames, ignore_index=True)
    with atomic_folder(HERE.stability(dataset, classifier)) as temporary:
        whole.astype({"step": "Int64"}).to_parquet(temporary / IMAGES, index=False)
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


def decomposed(subject: scoring.Subject, seeds: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each saved step with the psi_distinct of every seed: (S, N, C, H, W)."""
    folders = [HERE.decomposition(subject.dataset, subject.name, seed) for seed in seeds]
    modules = subject.params.modules
    _, info, _, _ = load_decomposer(folders[0], modules)
    kept = [load_snapshots(folder, modules) for folder in folders]
    for snapshots in zip(*kept, strict=True):
        (step,) = {step for step, _ in snapshots}
        found = []
        for seed, (_, decomposer) in zip(seeds, snapshots, strict=True):
            explainer = DXAI(decomposer, info, subject.classifier, subject.seed)
            explainer.to(subject.device)
            found.append(_attributions(subject, explainer, f"{seed}, step {step}").numpy())
        yield step, np.stack(found)


def layered(subject: scoring.Subject, method: str, layers: list[str]) -> np.ndarray:
    """Return the positive part of a method's maps at each layer: (S, N, 1, H, W)."""
    found = []
    for layer in layers:
        settings = subject.params.methods.get(method, {}) | {"layer": layer}
        explainer = build_explainer(method, subject.classifier, settings, subject.seed)
        found.append(_attributions(subject, explainer, f"{method} {layer}").clamp(min=0).numpy())
    return np.stack(found)


def _attributions(subject: scoring.Subject, explainer: Explainer, what: str) -> Tensor:
    title = f"stability {subject.dataset} {subject.name} {what}"
    parts = [
        explainer.attribute(batch.images, batch.labels, batch.index)
        for batch in subject.batches(title)
    ]
    return torch.cat(parts)


def _frame(
    subject: scoring.Subject, method: str, step: int | None, maps: np.ndarray
) -> pd.DataFrame:
    std, normalised = deviation(maps)
    index = chosen_images(len(subject.data), subject.params.evaluate.images)
    columns: dict[str, Any] = {
        "method": method,
        "step": step,
        "index": index,
        "id": [subject.data.ids[i] for i in index],
        "group": [subject.data.groups[i] for i in index],
        "std": std,
        "normalised": normalised,
    }
    return pd.DataFrame(columns)


if __name__ == "__main__":
    run_stage(main)
