"""Explain with one of the other methods and score it: DVC stage `baseline`."""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any

from torch import Tensor

from dxai.config.params_file import load_params
from dxai.config.settings import choose
from dxai.explain.registry import build_explainer
from dxai.paths import HERE
from dxai.stages import run_stage, scoring
from dxai.stages.pieces import Pieces
from dxai.types import Batch, Unsupported


def main(dataset: str, classifier: str, method: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/<method>/.

    A method that does not apply to the classifier becomes a row `unsupported`, one that breaks a
    row `failed`; the other rows stay valid, and the stage `report` then exits non-zero.
    """
    params = load_params()
    choose("method", method, params.methods)
    subject = scoring.subject(params, dataset, classifier, params.seeds[0])
    began = time.monotonic()
    pieces: Pieces | None = None
    try:
        work = _item(subject, method)
        pieces = scoring.in_pieces(work, ("dxai.stages.baseline", (dataset, classifier, method)))
        rows = _rows(work, pieces)
    except Unsupported as reason:
        rows, pieces = [_unscored(method, "unsupported", str(reason))], None
        print(f"{method}: unsupported: {reason}", flush=True)
    except (ValueError, ChildProcessError):
        raise  # a wrong setting or a lost cluster is the user's to mend, not a row of the table
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        rows = [_unscored(method, "failed", f"{type(error).__name__}: {error}")]
        pieces = None
    spent, out = time.monotonic() - began, HERE.outcome(dataset, classifier, method)
    scoring.write(out, subject, subject.seed, None, rows, pieces, spent)


def item(dataset: str, classifier: str, method: str) -> scoring.Item:
    """Return what an actor on Ray scores."""
    params = load_params()
    return _item(scoring.subject(params, dataset, classifier, params.seeds[0]), method)


def _item(subject: scoring.Subject, method: str) -> scoring.Item:
    settings = subject.params.methods[method]
    explainer = build_explainer(method, subject.classifier, settings, subject.seed)
    explainer.look_at(subject.first)
    scorer = subject.scorer()

    def explain(batch: Batch) -> tuple[dict[str, Tensor], float]:
        began = time.perf_counter()
        found = explainer.attribute(batch.images, batch.labels, batch.index).detach()
        spent = time.perf_counter() - began
        truth = subject.truth(batch)
        for sign, heat, distinct in explainer.by_sign(found, batch.images):
            scorer.add(explainer.name, sign, batch, distinct, heat=heat, truth=truth)
        return {explainer.name: found}, spent

    title = f"baseline {subject.dataset} {subject.name} {method}"
    return scoring.Item(subject, title, scorer, [settings], explain, explainer)


def _rows(work: scoring.Item, pieces: Pieces) -> list[dict[str, Any]]:
    explainer, each = work.explainer, pieces.seconds / len(work.subject.chosen)
    assert explainer is not None
    rows = [pieces.summary(work.scorer, explainer.name, sign, each) for sign in explainer.signs]
    return [row | {"layer": explainer.layer} for row in rows]


def _unscored(method: str, status: str, reason: str) -> dict[str, Any]:
    return {"method": method, "sign": "", "status": status, "reason": reason}


if __name__ == "__main__":
    run_stage(main, alone=True)
