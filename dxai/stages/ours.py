"""Decompose and score the test images, with two controls: DVC stage `ours`.

The controls take ψ_distinct apart: `random_phase` keeps its spectrum, `shuffled` its pixels. What
they remove is as much as ours removes, so what ours gains over them is structure.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from dxai import stages
from dxai.explain import controls
from dxai.explain.decomposition import DXAI
from dxai.params import load_params
from dxai.stages import scoring

CONTROLS = {"shuffled": controls.shuffled, "random_phase": controls.random_phase}


def main(dataset: str, classifier: str, seed_text: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/dxai-<seed>/."""
    params, seed = load_params(), int(seed_text)
    subject = scoring.subject(params, dataset, classifier, seed)
    explainer = DXAI.load(
        stages.DECOMPOSITIONS / dataset / classifier / seed_text,
        seed=subject.seed,
        latents=params.evaluate.latents,
    )
    began, spent, scorer = time.monotonic(), 0.0, subject.scorer()
    kept: dict[str, list[np.ndarray]] = {}
    for batch in subject.batches(f"ours {dataset} {classifier} {seed}"):
        started = time.perf_counter()
        found = explainer.explain(batch.images, batch.labels, batch.index)
        spent += time.perf_counter() - started
        scorer.add("dxai", "part", batch, found.distinct, found.reconstruction)
        for name, control in CONTROLS.items():
            part = control(found.distinct, batch.index, subject.seed)
            scorer.add(name, "part", batch, part)
        arrays: dict[str, Any] = {
            "index": batch.index,
            "dxai": found.distinct,
            "agnostic": found.agnostic,
            "reconstruction": found.reconstruction,
        }
        for name, value in arrays.items():
            kept.setdefault(name, []).append(value.numpy())
    stored = {name: np.concatenate(values) for name, values in kept.items()}
    rows = [scorer.row("dxai", "part", spent / len(stored["index"]))]
    rows += [scorer.row(name, "part", None) for name in CONTROLS]
    out = stages.OUTCOMES / dataset / classifier / f"dxai-{seed}"
    scoring.write(out, subject, seed, rows, scorer, stored, time.monotonic() - began)


if __name__ == "__main__":
    stages.run_stage(main, "dataset", "classifier", "seed")
