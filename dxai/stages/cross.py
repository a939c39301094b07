"""Score one classifier's explanations by another classifier: DVC stage `cross` (Table 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dxai.config.params_file import load_params
from dxai.paths import ATTRIBUTIONS, CROSS, HERE, OUTCOMES, SUMMARY
from dxai.stages import run_stage, scoring
from dxai.utils.files import atomic_folder, read_json, write_json


def main(dataset: str, classifier: str, scorer: str, decomposition: str) -> None:
    """Write results/outcomes/<dataset>/<classifier>/dxai-<decomposition>-by-<scorer>/.

    The class-distinct parts are those that the stage `ours` saved.
    """
    params = load_params()
    _, seed = params.decomposition(dataset, classifier, decomposition)
    subject = scoring.subject(params, dataset, scorer, seed, with_twin=False)
    ours = HERE.ours(dataset, classifier, decomposition)
    with np.load(ours / ATTRIBUTIONS) as file:
        index, parts = file["index"], torch.from_numpy(file["dxai"])
    scores, row_of = subject.scorer(["beta"]), {int(i): k for k, i in enumerate(index)}
    for batch in subject.batches(f"cross {dataset} {classifier} {scorer} {decomposition}"):
        rows = [row_of[i] for i in batch.index.tolist()]
        scores.add("dxai", "part", batch, parts[rows])
    row: dict[str, Any] = scores.row("dxai", "part", None)
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
        scores.outcomes().to_parquet(temporary / OUTCOMES, index=False)
        write_json(temporary / CROSS, found)


if __name__ == "__main__":
    run_stage(main)
