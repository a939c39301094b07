"""Explain with one of the other methods and score it: DVC stage `baseline`."""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any

import numpy as np

from dxai.config.params_file import load_params
from dxai.config.settings import choose
from dxai.explain.base import Explainer
from dxai.explain.registry import build_explainer
from dxai.metrics.removal import distinct_from_heatmap
from dxai.metrics.scorer import Scorer
from dxai.paths import HERE
from dxai.stages import run_stage, scoring
from dxai.types import Unsupported

Scored = tuple[list[dict[str, Any]], Scorer | None, dict[str, np.ndarray]]
"""Rows of the table, measurements, and the maps by name."""


def main(dataset: str, classifier: str, method: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/<method>/.

    A method that does not apply to the classifier becomes a row `unsupported`, one that breaks a
    row `failed`; the other rows stay valid, and the stage `report` then exits non-zero.
    """
    params = load_params()
    choose("method", method, params.methods)
    subject = scoring.subject(params, dataset, classifier, params.seeds[0])
    began = time.monotonic()
    try:
        settings = params.methods[method]
        explainer = build_explainer(method, subject.classifier, settings, subject.seed)
        rows, scorer, maps = _score(subject, explainer)
    except Unsupported as reason:
        rows, scorer, maps = _unscored(method, "unsupported", str(reason))
        print(f"{method}: unsupported: {reason}", flush=True)
    except ValueError:
        raise  # a wrong setting is the user's to correct, not a row of the table
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        rows, scorer, maps = _unscored(method, "failed", f"{type(error).__name__}: {error}")
    spent, out = time.monotonic() - began, HERE.outcome(dataset, classifier, method)
    scoring.write(out, subject, subject.seed, None, rows, scorer, maps, spent)


def _score(subject: scoring.Subject, explainer: Explainer) -> Scored:
    scorer, spent, maps, index = subject.scorer(), 0.0, [], []
    title = f"baseline {subject.dataset} {subject.name} {explainer.name}"
    for batch in subject.batches(title):
        began = time.perf_counter()
        found = explainer.attribute(batch.images, batch.labels, batch.index).detach()
        spent += time.perf_counter() - began
        maps.append(found.numpy())
        index.append(batch.index.numpy())
        truth = subject.truth(batch)
        for sign in explainer.signs:
            heat = distinct = found
            if explainer.kind == "heatmap":
                heat = explainer.under(found, sign)
                distinct = distinct_from_heatmap(heat, batch.images, sign)
            scorer.add(explainer.name, sign, batch, distinct, heat=heat, truth=truth)
    stored = {"index": np.concatenate(index), explainer.name: np.concatenate(maps)}
    each = spent / len(stored["index"])
    rows = [scorer.row(explainer.name, sign, each) for sign in explainer.signs]
    return [row | {"layer": explainer.layer} for row in rows], scorer, stored


def _unscored(method: str, status: str, reason: str) -> Scored:
    return [{"method": method, "sign": "", "status": status, "reason": reason}], None, {}


if __name__ == "__main__":
    run_stage(main)
