"""How far the seeds of a decomposition agree, beside layer-based maps: DVC stage `stability`.

Table 4: one frozen classifier, the same images and the same z; the decompositions of several
seeds at four points of their training, Grad-CAM and Internal Influence at three layers in a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from dxai import stages
from dxai.config.schema import load_params
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.metrics.scorer import chosen_images
from dxai.metrics.stability import deviation, pixel_deviation
from dxai.models.classifiers import default_layers
from dxai.models.serialization import load_decomposer, load_snapshots
from dxai.stages import scoring
from dxai.utils.files import atomic_folder, write_json

LAYERED = ("gradcam", "internal_influence")
SHOWN = 6
"""Images whose maps are kept for pictures."""


def main(dataset: str, classifier: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/stability/.

    In it `images.parquet` (method, step, image: `std` and `normalised`), `maps.npz` (deviations of
    some images at each step) and `stability.json`.
    """
    params = load_params()
    seeds = params.seeds_of(classifier)
    subject = scoring.subject(params, dataset, classifier, seeds[0], with_twin=False)
    frames, maps = [], {}
    for step, found in decomposed(subject, seeds):
        frames.append(_frame(subject, "dxai", step, found))
        maps[f"step-{step}"] = pixel_deviation(found[:, :SHOWN]).astype(np.float32)
    layers = default_layers(subject.classifier)["sequential"]
    for method in LAYERED if layers else ():
        frames.append(_frame(subject, method, None, layered(subject, method, layers)))
    whole = pd.concat(frames, ignore_index=True)
    with atomic_folder(stages.OUTCOMES / dataset / classifier / "stability") as temporary:
        whole.astype({"step": "Int64"}).to_parquet(temporary / "images.parquet", index=False)
        np.savez_compressed(temporary / "maps.npz", **maps)  # type: ignore[arg-type]
        write_json(
            temporary / "stability.json",
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
    """Each kept step, with psi_distinct of every seed at it: (S, N, C, H, W)."""
    root = stages.DECOMPOSITIONS / subject.dataset / subject.name
    _, info, _, _ = load_decomposer(root / str(seeds[0]))
    kept = [load_snapshots(root / str(seed)) for seed in seeds]
    for snapshots in zip(*kept, strict=True):
        (step,) = {step for step, _ in snapshots}
        found = []
        for seed, (_, decomposer) in zip(seeds, snapshots, strict=True):
            explainer = DXAI(decomposer, info, subject.classifier, subject.seed)
            title = f"stability {subject.dataset} {subject.name} {seed}, step {step}"
            parts = [
                explainer.attribute(batch.images, batch.labels, batch.index).numpy()
                for batch in subject.batches(title)
            ]
            found.append(np.concatenate(parts))
        yield step, np.stack(found)


def layered(subject: scoring.Subject, method: str, layers: list[str]) -> np.ndarray:
    """The maps of a method at each layer, after its rule for the sign: (S, N, 1, H, W)."""
    found = []
    for layer in layers:
        settings = subject.params.methods.get(method, {}) | {"layer": layer}
        explainer = build_explainer(method, subject.classifier, settings, subject.seed)
        title = f"stability {subject.dataset} {subject.name} {method} {layer}"
        parts = [
            explainer.attribute(batch.images, batch.labels, batch.index).clamp(min=0).numpy()
            for batch in subject.batches(title)
        ]
        found.append(np.concatenate(parts))
    return np.stack(found)


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
    stages.run_stage(main, "dataset", "classifier")
