"""Score one classifier's explanations by another classifier: DVC stage `cross` (Table 3)."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import torch
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.paths import ATTRIBUTIONS, CROSS, HERE, OUTCOMES, SUMMARY
from dxai.stages import run_stage, scoring
from dxai.types import Batch
from dxai.utils.files import atomic_folder, read_json, sha256, write_json
from dxai.utils.npz import Rows, open_rows


def main(dataset: str, classifier: str, scorer: str, decomposition: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/dxai-<decomposition>-by-<scorer>/.

    The class-distinct parts are those that the stage `ours` saved.
    """
    work = item(dataset, classifier, scorer, decomposition)
    params, ours = work.subject.params, HERE.ours(dataset, classifier, decomposition)
    _, seed = params.decomposition(dataset, classifier, decomposition)
    source = "dxai.stages.cross", (dataset, classifier, scorer, decomposition)
    pieces = scoring.in_pieces(work, source)
    row = pieces.summary(work.scorer, "dxai", "part", None)
    found = {
        "dataset": dataset,
        "trained": classifier,
        "scorer": scorer,
        "seed": seed,
        "steps": read_json(ours / SUMMARY)["steps"],
        "profile": params.profile,
        "images": row["images"],
        "row": row,
    }
    with atomic_folder(HERE.cross(dataset, classifier, decomposition, scorer)) as temporary:
        pieces.write_table(OUTCOMES, temporary / OUTCOMES)
        write_json(temporary / CROSS, found)
    pieces.remove()


def item(dataset: str, classifier: str, scorer: str, decomposition: str) -> scoring.Item:
    """Return what is scored, here or by an actor on Ray."""
    params = load_params()
    _, seed = params.decomposition(dataset, classifier, decomposition)
    subject = scoring.subject(params, dataset, scorer, seed, with_twin=False)
    maps = HERE.ours(dataset, classifier, decomposition) / ATTRIBUTIONS
    with np.load(maps) as file:
        row_of = {int(i): k for k, i in enumerate(file["index"])}
    scores = subject.scorer(["beta"])
    opened = contextlib.ExitStack()

    @functools.cache  # opened anew for each batch, it would be unpacked from its start each time
    def parts() -> Rows:
        return opened.enter_context(open_rows(maps, scoring.OURS))

    def score(batch: Batch) -> tuple[dict[str, Tensor], float]:
        found = parts()[[row_of[i] for i in batch.index.tolist()]]
        scores.add("dxai", "part", batch, torch.from_numpy(found))
        return {}, 0.0

    title = f"cross {dataset} {classifier} {scorer} {decomposition}"
    return scoring.Item(subject, title, scores, [sha256(maps)], score)


if __name__ == "__main__":
    run_stage(main, alone=True)
