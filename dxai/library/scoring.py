"""Scores of an explainer and of other methods on labelled images: Table 1 and Definition 1.

The numbers, files and tables are those of the benchmark's stages, for one explainer and without a
twin: a user's network has none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dxai.config.profiles import load_profile
from dxai.config.schema import EvaluateParams, Params
from dxai.config.settings import parse
from dxai.datasets.in_memory import InMemoryImages
from dxai.explain import controls
from dxai.explain.base import Explainer
from dxai.explain.registry import build_explainer
from dxai.library.explainer import DXAI
from dxai.metrics import smoothing
from dxai.metrics.removal import distinct_from_heatmap
from dxai.metrics.scorer import Scorer
from dxai.paths import IMAGES, OUTCOMES, SUMMARY
from dxai.results.methods import NEUTRAL, OURS
from dxai.results.table_builders import definition1, table1
from dxai.types import GENERATED, Batch, Unsupported
from dxai.utils.files import write_json
from dxai.utils.progress import Progress

PROFILE = "quick"
"""The profile whose settings of methods and scoring are taken."""
CURVES = ("beta", "energy", "blur", "smooth")
"""The curves of Table 1 that need no twin."""
READ = ("beta",)
"""The curve that Definition 1 reads of the neutral part."""
CONTROLS = {"shuffled": controls.shuffled, "random_phase": controls.random_phase}


@dataclass(frozen=True)
class Subject:
    """What is scored: images, the explainer with its classifier, and how.

    `noise` is the deviation of the noise that the classifier stands (`auc_smooth`), measured on
    other images; 0 if it stands none.
    """

    name: str
    explainer: DXAI
    data: InMemoryImages
    params: Params
    noise: float

    @property
    def evaluate(self) -> EvaluateParams:
        """Return the settings of the scoring."""
        return self.params.evaluate

    def scorer(self) -> Scorer:
        classifier, names = self.explainer.classifier, self.data.class_names
        return Scorer(
            classifier, None, names, self.evaluate, self.evaluate.seed, CURVES, self.noise
        )

    def batches(self, title: str) -> Iterator[Batch]:
        """Yield all images and print progress."""
        progress, done = Progress(title, len(self.data), unit="images"), 0
        for batch in self.data.batches(self.evaluate.batch_size):
            yield batch
            done += len(batch.ids)
            progress.update(done)


def settings() -> Params:
    """Return the settings of the scoring and of all methods: those of the profile `quick`."""
    return parse(Params, load_profile(PROFILE), "")


def tolerated_noise(explainer: DXAI, data: InMemoryImages, params: Params) -> float:
    """Return the deviation of the noise that the classifier stands on some images."""
    per_class = max(1, smoothing.IMAGES // len(data.class_names))
    batches = data.batches(params.evaluate.batch_size, data.spread(per_class))
    return smoothing.tolerated(explainer.classifier, batches, params.evaluate.seed)


def score(
    subject: Subject, methods: Sequence[str | Explainer], folder: Path
) -> list[dict[str, Any]]:
    """Score ours, its controls and other methods; write a folder of outcomes for each.

    Returns the rows of all methods, as in `summary.json`. A method that does not apply, or whose
    package is missing, becomes a row `unsupported`.
    """
    rows = _score_ours(subject, folder / OURS)
    for method in methods:
        if isinstance(method, Explainer):
            rows += _score_method(subject, method, folder / method.name)
            continue
        try:
            given = subject.params.methods.get(method, {})
            seed, network = subject.evaluate.seed, subject.explainer.classifier
            found = build_explainer(method, network, given, seed)
            rows += _score_method(subject, found, folder / method)
        except Unsupported as error:
            rows += _unscored(subject, method, str(error), folder / method)
        except ModuleNotFoundError as error:
            reason = f"{error.name} is not installed; `pip install 'dxai[baselines]'` installs it"
            rows += _unscored(subject, method, reason, folder / method)
    return rows


def tables(subject: Subject, folder: Path, methods: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Make Table 1 and Definition 1 of the folders that `score` wrote."""
    folders = [folder / name for name in (OURS, *methods)]
    return {
        "table1": table1(folders, subject.params),
        "definition1": definition1(folders, subject.params),
    }


def _score_ours(subject: Subject, out: Path) -> list[dict[str, Any]]:
    explainer, scorer, spent = subject.explainer, subject.scorer(), 0.0
    for batch in subject.batches("score ours"):
        began = time.perf_counter()
        found = explainer.explain(batch.images, batch.labels, batch.index, GENERATED)
        spent += time.perf_counter() - began
        scorer.add(OURS, "part", batch, found.distinct, found.reconstruction)
        neutral = explainer.explain(batch.images, batch.labels, batch.index)
        scorer.add(NEUTRAL, "part", batch, neutral.distinct, curves=READ)
        for name, control in CONTROLS.items():
            scorer.add(name, "part", batch, control(found.distinct, batch.index, explainer.seed))
    rows = [scorer.row(OURS, "part", spent / len(subject.data))]
    rows += [scorer.row(name, "part", None) for name in CONTROLS]
    _write(subject, out, rows, scorer)
    return rows


def _score_method(subject: Subject, explainer: Explainer, out: Path) -> list[dict[str, Any]]:
    scorer, spent = subject.scorer(), 0.0
    for batch in subject.batches(f"score {explainer.name}"):
        began = time.perf_counter()
        found = explainer.attribute(batch.images, batch.labels, batch.index).detach()
        spent += time.perf_counter() - began
        for sign in explainer.signs:
            heat = distinct = found
            if explainer.kind == "heatmap":
                heat = explainer.under(found, sign)
                distinct = distinct_from_heatmap(heat, batch.images, sign)
            scorer.add(explainer.name, sign, batch, distinct, heat=heat)
    each = spent / len(subject.data)
    rows = [scorer.row(explainer.name, sign, each) for sign in explainer.signs]
    rows = [row | {"layer": explainer.layer} for row in rows]
    _write(subject, out, rows, scorer)
    return rows


def _unscored(subject: Subject, method: str, reason: str, out: Path) -> list[dict[str, Any]]:
    rows = [{"method": method, "sign": "", "status": "unsupported", "reason": reason}]
    _write(subject, out, rows, None)
    return rows


def _write(subject: Subject, out: Path, rows: list[dict[str, Any]], scorer: Scorer | None) -> None:
    """Write what the tables read, in the form of the evaluating stages."""
    out.mkdir(parents=True, exist_ok=True)
    if scorer is not None:
        scorer.outcomes().to_parquet(out / OUTCOMES, index=False)
        scorer.images().to_parquet(out / IMAGES, index=False)
    about = {
        "dataset": subject.name,
        "classifier": str(subject.explainer.info["classifier"]),
        "seed": int(subject.explainer.info["seed"]),
        "profile": str(subject.explainer.info["profile"]),
        "steps": None,
        "class_names": subject.data.class_names,
        "images": len(subject.data),
        "rows": rows,
    }
    write_json(out / SUMMARY, about)
