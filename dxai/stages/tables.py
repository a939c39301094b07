"""Collect the tables: DVC stage `tables`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dxai import stages
from dxai.evaluate import tables
from dxai.files import atomic, write_json
from dxai.params import Params, load_params


def main() -> None:
    """Write table1.csv, table6.csv, curves.csv and metrics.json into results/."""
    params = load_params()
    folders = outcome_folders(params)
    first = tables.table1(folders, params.evaluate)
    named = [(d, c) for d in params.datasets for c in params.classifiers]
    trained = [stages.CLASSIFIERS / d / c / "explained" for d, c in named]
    sixth = tables.table6(trained, named, params.profile)
    found = tables.claims(first, folders, params.evaluate)
    _write_csv(first, stages.RESULTS / "table1.csv")
    _write_csv(sixth, stages.RESULTS / "table6.csv")
    _write_csv(tables.curves(folders), stages.RESULTS / "curves.csv")
    write_json(stages.RESULTS / "metrics.json", tables.metrics(first, sixth, found))
    for claim in found:
        verdict = "better" if claim["better"] else "not better"
        print(
            f"tables: {claim['dataset']} {claim['classifier']}: AUC {claim['auc']:.3f}, "
            f"{claim['delta']:+.3f} [{claim['delta_low']:+.3f}, {claim['delta_high']:+.3f}] "
            f"against {claim['baseline']} {claim['baseline_auc']:.3f}: {verdict}",
            flush=True,
        )


def outcome_folders(params: Params) -> list[Path]:
    """The folders of results/outcomes/ that belong to this run, in the order of its params."""
    names = [*(f"dxai-{seed}" for seed in params.seeds), *params.methods]
    return [
        stages.OUTCOMES / dataset / classifier / name
        for dataset in params.datasets
        for classifier in params.explained
        for name in names
    ]


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")


if __name__ == "__main__":
    stages.run_stage(main)
