"""Explain and score with one of the other methods: DVC stage `baseline`."""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any

import numpy as np

from dxai import stages
from dxai.config.schema import choose, load_params
from dxai.explain.base import Explainer
from dxai.explain.registry import build_explainer
from dxai.metrics.removal import part_from_heatmap, with_sign
from dxai.stages import scoring
from dxai.types import Unsupported


def main(dataset: str, classifier: str, method: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/<method>/.

    A method that cannot apply to the classifier becomes a row `unsupported`; one that breaks
    becomes a row `failed`, so that the other rows stand: the stage `tables` then ends non-zero.
    """
    params = load_params()
    choose("method", method, params.methods)
    subject = scoring.subject(params, dataset, classifier, params.seeds[0])
    out = stages.OUTCOMES / dataset / classifier / method
    began = time.monotonic()
    try:
        explainer = build_explainer(
            method, subject.classifier, params.methods[method], subject.seed
        )
        rows, scorer, maps = _score(subject, explainer)
    except Unsupported as reason:
        rows, scorer, maps = [_empty(method, "unsupported", str(reason))], None, {}
        print(f"{method}: unsupported: {reason}", flush=True)
    except ValueError:
        raise  # a wrong setting is the user's to mend, not a row of the table
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        rows, scorer, maps = (
            [_empty(method, "failed", f"{type(error).__name__}: {error}")],
            None,
            {},
        )
    spent = time.monotonic() - began
    scoring.write(out, subject, subject.seed, None, rows, scorer, maps, spent)


def _score(
    subject: scoring.Subject, explainer: Explainer
) -> tuple[list[dict[str, Any]], Any, dict[str, np.ndarray]]:
    scorer, spent, maps, index = subject.scorer(), 0.0, [], []
    title = f"baseline {subject.dataset} {subject.name} {explainer.name}"
    for batch in subject.batches(title):
        began = time.perf_counter()
        found = explainer.attribute(batch.images, batch.labels, batch.index).detach()
        spent += time.perf_counter() - began
        maps.append(found.numpy())
        index.append(batch.index.numpy())
        known = subject.known(batch)
        for sign in explainer.signs:
            heat = part = found
            if explainer.kind == "heatmap":
                heat = with_sign(found, sign)
                part = part_from_heatmap(found, batch.images, sign)
            scorer.add(explainer.name, sign, batch, part, heat=heat, known=known)
    stored = {"index": np.concatenate(index), explainer.name: np.concatenate(maps)}
    each = spent / len(stored["index"])
    return [scorer.row(explainer.name, sign, each) for sign in explainer.signs], scorer, stored


def _empty(method: str, status: str, reason: str) -> dict[str, Any]:
    return {"method": method, "sign": "", "status": status, "reason": reason}


if __name__ == "__main__":
    stages.run_stage(main, "dataset", "classifier", "method")
