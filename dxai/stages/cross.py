"""Score what was explained for one classifier by another one: DVC stage `cross` (Table 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dxai import stages
from dxai.config.schema import load_params
from dxai.stages import scoring
from dxai.utils.files import atomic_folder, read_json, write_json


def main(dataset: str, trained: str, scorer_name: str, decomposition: str) -> None:
    """Write results/outcomes/<dataset>/<trained>/dxai-<decomposition>-by-<scorer>/.

    The class-distinct parts are those that the stage `ours` has kept.
    """
    params = load_params()
    _, seed = params.decomposition(dataset, trained, decomposition)
    subject = scoring.subject(params, dataset, scorer_name, seed, with_twin=False)
    ours = stages.OUTCOMES / dataset / trained / f"dxai-{decomposition}"
    with np.load(ours / "attributions.npz") as file:
        index, parts = file["index"], torch.from_numpy(file["dxai"])
    scorer, place = subject.scorer(["beta"]), {int(i): k for k, i in enumerate(index)}
    for batch in subject.batches(f"cross {dataset} {trained} {scorer_name} {decomposition}"):
        at = [place[i] for i in batch.index.tolist()]
        scorer.add("dxai", "part", batch, parts[at])
    row: dict[str, Any] = scorer.row("dxai", "part", None)
    with atomic_folder(ours.with_name(f"{ours.name}-by-{scorer_name}")) as temporary:
        scorer.outcomes().to_parquet(temporary / "outcomes.parquet", index=False)
        write_json(
            temporary / "cross.json",
            {
                "dataset": dataset,
                "trained": trained,
                "scorer": scorer_name,
                "seed": seed,
                "steps": read_json(ours / "summary.json")["steps"],
                "profile": params.profile,
                "images": row["images"],
                "row": row,
            },
        )


if __name__ == "__main__":
    stages.run_stage(main, "dataset", "classifier", "scorer", "decomposition")
