"""Collect the tables: DVC stage `tables`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dxai import stages
from dxai.evaluate import tables
from dxai.evaluate.claims import all_claims
from dxai.evaluate.exports import write_exports
from dxai.evaluate.names import OURS
from dxai.files import atomic, atomic_folder, write_json
from dxai.params import Params, load_params


def main() -> None:
    """Write results/tables/, curves.csv and metrics.json."""
    params = load_params()
    folders, settings = outcome_folders(params), params.evaluate
    cross, stability = cross_folders(params), stability_folders(params)
    named = [(d, c) for d in params.datasets for c in params.classifiers]
    trained = [stages.CLASSIFIERS / d / c / "explained" for d, c in named]
    for dataset in params.datasets:  # C = D has a twin that is a discriminator trained alone
        for joint in params.joint:
            named.append((dataset, "discriminator"))
            trained.append(stages.CLASSIFIERS / dataset / joint / "twin")
    found = all_claims(folders, cross, stability, settings)
    tabled = {
        "table1": tables.table1(folders, settings),
        "table2": tables.table2(folders),
        "table3": tables.table3(cross, settings),
        "table4": tables.table4(stability, settings),
        "table5": tables.table5([stages.DATA / d for d in params.datasets], params),
        "table6": tables.table6(trained, named, params.profile),
        "ablations": ablations(params),
        "localisation": tables.localisation(folders),
        "per_class": tables.per_class(folders, settings),
        "per_image": tables.per_image(folders),
        "claims": found,
    }
    with atomic_folder(stages.TABLES) as temporary:
        for name, frame in tabled.items():
            frame.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g")
        write_exports(temporary)
    with atomic(stages.RESULTS / "curves.csv") as temporary:
        tables.curves(folders).to_csv(temporary, index=False, float_format="%.6g")
    metrics = tables.metrics(tabled["table1"], tabled["table6"], found)
    write_json(stages.RESULTS / "metrics.json", metrics)
    for _, claim in found.iterrows():
        print(
            f"tables: Table {claim['table']}, {claim['dataset']} {claim['classifier']}: "
            f"{claim['claim']}: {claim['ours_value']:.3f} against {claim['other_value']:.3f} "
            f"({claim['other']}), {claim['delta']:+.3f} "
            f"[{claim['delta_low']:+.3f}, {claim['delta_high']:+.3f}]: "
            f"{'holds' if claim['holds'] else 'does not hold'}",
            flush=True,
        )


def outcome_folders(params: Params) -> list[Path]:
    """Folders of the stages `ours` and `baseline` of this run, in the order of its params."""
    return [
        stages.OUTCOMES / dataset / classifier / name
        for dataset in params.datasets
        for classifier in params.explained
        for name in [*(f"{OURS}-{seed}" for seed in params.seeds_of(classifier)), *params.methods]
    ]


def cross_folders(params: Params) -> list[Path]:
    """Folders of the stage `cross`."""
    return [
        stages.OUTCOMES / dataset / trained / f"{OURS}-{seed}-by-{scorer}"
        for dataset in params.datasets
        for trained in params.classifiers
        for scorer in params.classifiers
        for seed in params.seeds_of(trained)
    ]


def stability_folders(params: Params) -> list[Path]:
    """Folders of the stage `stability`."""
    return [
        stages.OUTCOMES / dataset / classifier / "stability"
        for dataset in params.datasets
        for classifier in params.repeat.classifiers
    ]


def ablations(params: Params) -> pd.DataFrame:
    """The ablation table; empty if nothing is ablated."""
    frames = []
    for dataset in params.ablations.datasets:
        for classifier in params.ablations.classifiers:
            place = stages.OUTCOMES / dataset / classifier
            variants = params.variants_of(dataset, classifier)
            folders = [place / f"{OURS}-{variant}" for variant in variants]
            base = place / f"{OURS}-{params.seeds[0]}"
            frames.append(tables.ablations(folders, base, params.evaluate))
    if not frames:
        return pd.DataFrame(columns=list(tables.ABLATION_COLUMNS))
    return pd.concat(frames, ignore_index=True)


if __name__ == "__main__":
    stages.run_stage(main)
