"""Scores of an explainer and of other methods on labelled images: Table 1 and Definition 1.

The numbers, files and tables are those of the benchmark's stages, for one explainer and without a
twin: a user's network has none.
"""

from __future__ import annotations

import functools
import math
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
class Limit:
    """Images are scored `at_once` by `at_once`, until the clock `time.monotonic` shows a time.

    The time that `spare` images take is left over; `fewest` are scored in any case.
    """

    until: float
    at_once: int
    fewest: int
    spare: float

    def foreseen(self, done: int, seconds: float) -> int:
        """Return how many images fit, if `done` took so many seconds."""
        left = self.until - time.monotonic()
        more = left * done / max(seconds, 1e-9) - self.spare
        return max(self.fewest, done + max(0, math.ceil(min(more, 1e9))))


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

    def batches(self, limit: Limit | None) -> Iterator[Batch]:
        """Yield the images in order, all or as many as the time allows, and print progress."""
        progress, done = Progress("score", len(self.data), unit="images"), 0
        for batch in self.data.batches(limit.at_once if limit else self.evaluate.batch_size):
            yield batch
            done += len(batch.ids)
            if limit:
                progress.total = min(len(self.data), limit.foreseen(done, progress.seconds))
            progress.update(done)
            if done >= progress.total:
                return


def settings() -> Params:
    """Return the settings of the scoring and of all methods: those of the profile `quick`."""
    return parse(Params, load_profile(PROFILE), "")


def tolerated_noise(explainer: DXAI, data: InMemoryImages, params: Params) -> float:
    """Return the deviation of the noise that the classifier stands on some images."""
    per_class = max(1, smoothing.IMAGES // len(data.class_names))
    indices = data.spread(per_class)
    batches = functools.partial(data.batches, params.evaluate.batch_size, indices)
    return smoothing.tolerated(explainer.classifier, batches, params.evaluate.seed)


def score(
    subject: Subject, methods: Sequence[str | Explainer], folder: Path, limit: Limit | None = None
) -> list[dict[str, Any]]:
    """Score ours, its controls and other methods; write a folder of outcomes for each.

    All are scored on the same images: all, or as many as the time allows.

    Returns the rows of all methods, as in `summary.json`. A method that does not apply, or whose
    package is missing, becomes a row `unsupported`.
    """
    scored = [_Ours(subject), *(_scored(subject, method) for method in methods)]
    for batch in subject.batches(limit):
        for one in scored:
            one.add(batch)
    return [row for one in scored for row in one.write(folder)]


def tables(subject: Subject, folder: Path, methods: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Make Table 1 and Definition 1 of the folders that `score` wrote."""
    folders = [folder / name for name in (OURS, *methods)]
    return {
        "table1": table1(folders, subject.params),
        "definition1": definition1(folders, subject.params),
    }


class _Scored:
    """The scores of one method so far, or the reason why it has none."""

    def __init__(self, subject: Subject, name: str, reason: str = "") -> None:
        self.subject, self.name, self.reason = subject, name, reason
        self.scorer = subject.scorer()
        self.seconds, self.images = 0.0, 0

    def add(self, batch: Batch) -> None:
        """Explain and score a batch."""
        self.images += len(batch.ids)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table."""
        return [self._unsupported]

    @property
    def _unsupported(self) -> dict[str, Any]:
        return {"method": self.name, "sign": "", "status": "unsupported", "reason": self.reason}

    def write(self, folder: Path) -> list[dict[str, Any]]:
        """Write what the tables read, in the form of the evaluating stages; return the rows."""
        out, explainer, data = folder / self.name, self.subject.explainer, self.subject.data
        out.mkdir(parents=True, exist_ok=True)
        rows = self.rows()
        if not self.reason:
            self.scorer.outcomes().to_parquet(out / OUTCOMES, index=False)
            self.scorer.images().to_parquet(out / IMAGES, index=False)
        about = {
            "dataset": self.subject.name,
            "classifier": str(explainer.info["classifier"]),
            "seed": int(explainer.info["seed"]),
            "profile": str(explainer.info["profile"]),
            "steps": None,
            "class_names": data.class_names,
            "images": self.images,
            "rows": rows,
        }
        write_json(out / SUMMARY, about)
        return rows


class _Ours(_Scored):
    """Our parts, and the controls made of them."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, OURS)

    def add(self, batch: Batch) -> None:
        super().add(batch)
        explainer, add = self.subject.explainer, self.scorer.add
        began = time.perf_counter()
        found = explainer.explain(batch.images, batch.labels, batch.index, GENERATED)
        self.seconds += time.perf_counter() - began
        add(OURS, "part", batch, found.distinct, found.reconstruction)
        neutral = explainer.explain(batch.images, batch.labels, batch.index)
        add(NEUTRAL, "part", batch, neutral.distinct, curves=READ)
        for name, control in CONTROLS.items():
            add(name, "part", batch, control(found.distinct, batch.index, explainer.seed))

    def rows(self) -> list[dict[str, Any]]:
        rows = [self.scorer.row(OURS, "part", self.seconds / self.images)]
        return rows + [self.scorer.row(name, "part", None) for name in CONTROLS]


class _Other(_Scored):
    """Another method."""

    def __init__(self, subject: Subject, explainer: Explainer) -> None:
        super().__init__(subject, explainer.name)
        self.explainer = explainer

    def add(self, batch: Batch) -> None:
        super().add(batch)
        if self.reason:
            return
        explainer, began = self.explainer, time.perf_counter()
        try:
            found = explainer.attribute(batch.images, batch.labels, batch.index).detach()
        except Unsupported as error:
            self.reason = str(error)
            return
        self.seconds += time.perf_counter() - began
        for sign, heat, distinct in explainer.by_sign(found, batch.images):
            self.scorer.add(explainer.name, sign, batch, distinct, heat=heat)

    def rows(self) -> list[dict[str, Any]]:
        if self.reason:
            return [self._unsupported]
        each, explainer = self.seconds / self.images, self.explainer
        rows = [self.scorer.row(explainer.name, sign, each) for sign in explainer.signs]
        return [row | {"layer": explainer.layer} for row in rows]


def _scored(subject: Subject, method: str | Explainer) -> _Scored:
    """Prepare the scoring of a method."""
    if isinstance(method, Explainer):
        return _Other(subject, method)
    try:
        given = subject.params.methods.get(method, {})
        seed, network = subject.evaluate.seed, subject.explainer.classifier
        return _Other(subject, build_explainer(method, network, given, seed))
    except Unsupported as error:
        return _Scored(subject, method, str(error))
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed; `pip install 'dxai[baselines]'` installs it"
        return _Scored(subject, method, reason)
