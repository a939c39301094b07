"""Score one classifier's explanations by another classifier: DVC stage `cross` (Table 3)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dxai.config.params_file import load_params
from dxai.paths import ATTRIBUTIONS, CROSS, HERE, OUTCOMES, SUMMARY
from dxai.stages import run_stage, scoring
from dxai.types import Batch
from dxai.utils.files import atomic_folder, read_json, sha256, write_json
from dxai.utils.npz import open_rows


def main(dataset: str, classifier: str, scorer: str, decomposition: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/dxai-<decomposition>-by-<scorer>/.

    The class-distinct parts are those that the stage `ours` saved.
    """
    params = load_params()
    _, seed = params.decomposition(dataset, classifier, decomposition)
    subject = scoring.subject(params, dataset, scorer, seed, with_twin=False)
    ours = HERE.ours(dataset, classifier, decomposition)
    with np.load(ours / ATTRIBUTIONS) as file:
        row_of = {int(i): k for k, i in enumerate(file["index"])}
    scores = subject.scorer(["beta"])
    title = f"cross {dataset} {classifier} {scorer} {decomposition}"
    with open_rows(ours / ATTRIBUTIONS, "dxai") as parts:

        def score(batch: Batch) -> tuple[dict[str, Tensor], float]:
            rows = [row_of[i] for i in batch.index.tolist()]
            scores.add("dxai", "part", batch, torch.from_numpy(parts[rows]))
            return {}, 0.0

        decisive = [sha256(ours / ATTRIBUTIONS)]
        pieces = scoring.in_pieces(scoring.Item(subject, title, scores, decisive, score))
    row = pieces.summary(scores, "dxai", "part", None)
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


if __name__ == "__main__":
    run_stage(main)
