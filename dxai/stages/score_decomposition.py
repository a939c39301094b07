"""Decompose the test images and score them, with two controls: DVC stage `ours`.

The controls scramble ψ_distinct: `random_phase` keeps its spectrum, `shuffled` its pixels. They
remove as much as ours does, so ours gains over them by structure alone. The tables score the
generator's part; the part without which the classifier is undecided (`neutral`) has outcomes of its
own, for Definition 1, but no row in the other tables.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.explain import controls
from dxai.explain.decomposition import DXAI
from dxai.paths import HERE, MODEL
from dxai.stages import run_stage, scoring
from dxai.types import GENERATED, NEUTRAL, Batch
from dxai.utils.files import sha256

READ = ("beta", "transfer")
"""The curves that Definition 1 and the report's panels read of `neutral`."""
CONTROLS = {"shuffled": controls.shuffled, "random_phase": controls.random_phase}


def main(dataset: str, classifier: str, decomposition: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/dxai-<decomposition>/.

    A decomposition is named by its seed or by its variant in the ablation.
    """
    began, work = time.monotonic(), item(dataset, classifier, decomposition)
    subject, scorer = work.subject, work.scorer
    settings, seed = subject.params.decomposition(dataset, classifier, decomposition)
    source = "dxai.stages.score_decomposition", (dataset, classifier, decomposition)
    pieces = scoring.in_pieces(work, source)
    rows = [pieces.summary(scorer, "dxai", "part", pieces.seconds / len(subject.chosen))]
    rows += [pieces.summary(scorer, name, "part", None) for name in CONTROLS]
    out, seconds = HERE.ours(dataset, classifier, decomposition), time.monotonic() - began
    scoring.write(out, subject, seed, settings.steps, rows, pieces, seconds)


def item(dataset: str, classifier: str, decomposition: str) -> scoring.Item:
    """Return what is scored, here or by an actor on Ray."""
    params = load_params()
    _, seed = params.decomposition(dataset, classifier, decomposition)
    subject = scoring.subject(params, dataset, classifier, seed)
    trained = HERE.decomposition(dataset, classifier, decomposition)
    latents, device = params.evaluate.latents, subject.device
    explainer = DXAI.load(trained, subject.seed, latents, params.modules, device)
    scorer, draws_of_z = subject.scorer(), params.evaluate.uncertainty

    def explain(batch: Batch) -> tuple[dict[str, Tensor], float]:
        started = time.perf_counter()
        found = explainer.explain(batch.images, batch.labels, batch.index, GENERATED)
        spent = time.perf_counter() - started
        spread = explainer.spread(batch.images, batch.labels, batch.index, draws_of_z)
        size = found.distinct.abs().mean((1, 2, 3)).clamp_min(torch.finfo(torch.float32).tiny)
        scorer.add(
            "dxai",
            "part",
            batch,
            found.distinct,
            found.reconstruction,
            truth=subject.truth(batch),
            extra={"uncertainty": spread.mean((1, 2, 3)) / size} if draws_of_z else None,
        )
        neutral = explainer.explain(batch.images, batch.labels, batch.index, NEUTRAL)
        scorer.add(NEUTRAL, "part", batch, neutral.distinct, curves=READ)
        for name, control in CONTROLS.items():
            scorer.add(name, "part", batch, control(found.distinct, batch.index, subject.seed))
        maps = {
            "dxai": found.distinct,
            NEUTRAL: neutral.distinct,
            "reconstruction": found.reconstruction,
            "spread": spread,
        }
        return maps, spent

    title = f"ours {dataset} {classifier} {decomposition}"
    return scoring.Item(subject, title, scorer, [sha256(trained / MODEL)], explain, explainer)


if __name__ == "__main__":
    run_stage(main, alone=True)
