"""Collect the tables: DVC stage `tables`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dxai import stages
from dxai.config.schema import Params, load_params
from dxai.paths import HERE, ours_name
from dxai.reporting.exports import write_exports
from dxai.results import tables
from dxai.results.claims import all_claims
from dxai.utils.files import atomic, atomic_folder, write_json


def main() -> None:
    """Write results/tables/, curves.csv and metrics.json."""
    params = load_params()
    tabled = {name: make(params) for name, make in MAKERS.items()}
    write(HERE.tables, tabled)
    with atomic(HERE.curves) as temporary:
        curves = tables.curves(outcome_folders(params))
        curves.to_csv(temporary, index=False, float_format="%.6g")
    found = tabled["claims"]
    metrics = tables.metrics(tabled["table1"], tabled["table6"], found)
    write_json(HERE.metrics, metrics)
    for _, claim in found.iterrows():
        print(
            f"tables: Table {claim['table']}, {claim['dataset']} {claim['classifier']}: "
            f"{claim['claim']}: {claim['ours_value']:.3f} against {claim['other_value']:.3f} "
            f"({claim['other']}), {claim['delta']:+.3f} "
            f"[{claim['delta_low']:+.3f}, {claim['delta_high']:+.3f}]: "
            f"{'holds' if claim['holds'] else 'does not hold'}",
            flush=True,
        )


def write(folder: Path, tabled: dict[str, pd.DataFrame]) -> None:
    """Tables as CSV files of a folder, which is replaced.

    Markdown and LaTeX come with them if all are there: one table refers to the other.
    """
    with atomic_folder(folder) as temporary:
        for name, frame in tabled.items():
            frame.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g")
        if tabled.keys() == MAKERS.keys():
            write_exports(temporary)


def claims(params: Params) -> pd.DataFrame:
    """Everything that is claimed."""
    found = outcome_folders(params), cross_folders(params), stability_folders(params)
    return all_claims(*found, params.evaluate)


def accuracies(params: Params) -> pd.DataFrame:
    """Table 6; C = D has a twin that is a discriminator trained alone."""
    named = [(d, c) for d in params.datasets for c in params.classifiers]
    trained = [HERE.classifier(d, c, "explained") for d, c in named]
    for dataset in params.datasets:
        for joint in params.joint:
            named.append((dataset, "discriminator"))
            trained.append(HERE.classifier(dataset, joint, "twin"))
    return tables.table6(trained, named, params.profile)


def outcome_folders(params: Params) -> list[Path]:
    """Folders of the stages `ours` and `baseline` of this run, in the order of its params."""
    return [
        HERE.outcome(dataset, classifier, name)
        for dataset in params.datasets
        for classifier in params.explained
        for name in [*map(ours_name, params.seeds_of(classifier)), *params.methods]
    ]


def cross_folders(params: Params) -> list[Path]:
    """Folders of the stage `cross`."""
    return [
        HERE.cross(dataset, trained, seed, scorer)
        for dataset in params.datasets
        for trained in params.classifiers
        for scorer in params.classifiers
        for seed in params.seeds_of(trained)
    ]


def stability_folders(params: Params) -> list[Path]:
    """Folders of the stage `stability`."""
    return [
        HERE.stability(dataset, classifier)
        for dataset in params.datasets
        for classifier in params.repeat.classifiers
    ]


def ablations(params: Params) -> pd.DataFrame:
    """The ablation table; empty if nothing is ablated."""
    frames = []
    for dataset in params.ablations.datasets:
        for classifier in params.ablations.classifiers:
            names = [str(params.seeds[0]), *params.variants_of(dataset, classifier)]
            base, *folders = [HERE.ours(dataset, classifier, name) for name in names]
            frames.append(tables.ablations(folders, base, params.evaluate))
    if not frames:
        return pd.DataFrame(columns=list(tables.ABLATION_COLUMNS))
    return pd.concat(frames, ignore_index=True)


MAKERS: dict[str, Callable[[Params], pd.DataFrame]] = {
    "table1": lambda params: tables.table1(outcome_folders(params), params.evaluate),
    "table2": lambda params: tables.table2(outcome_folders(params)),
    "table3": lambda params: tables.table3(cross_folders(params), params.evaluate),
    "table4": lambda params: tables.table4(stability_folders(params), params.evaluate),
    "table5": lambda params: tables.table5([HERE.dataset(d) for d in params.datasets], params),
    "table6": accuracies,
    "ablations": ablations,
    "localisation": lambda params: tables.localisation(outcome_folders(params)),
    "per_class": lambda params: tables.per_class(outcome_folders(params), params.evaluate),
    "per_image": lambda params: tables.per_image(outcome_folders(params)),
    "claims": claims,
}
"""Every table by its name, made from what the other stages left."""


if __name__ == "__main__":
    stages.run_stage(main)
