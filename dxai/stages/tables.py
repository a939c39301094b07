"""Collect the tables: DVC stage `tables`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from dxai.config.params_file import load_params
from dxai.config.schema import Params
from dxai.paths import HERE, ours_name
from dxai.reporting.text import write_exports
from dxai.results import table_builders
from dxai.results.table_specs import SPECS, short_title
from dxai.results.validity import judged
from dxai.stages import run_stage
from dxai.utils.files import atomic, atomic_folder, write_json


def main() -> None:
    """Write results/tables/, curves.csv and metrics.json."""
    params = load_params()
    frames = make(SPECS, params)
    write(HERE.tables, frames)
    with atomic(HERE.curves) as temporary:
        curves = table_builders.curve_points(outcome_folders(params))
        curves.to_csv(temporary, index=False, float_format="%.6g")
    write_json(HERE.metrics, table_builders.headlines(frames))
    for claim in frames["claims"].to_dict("records"):
        print(
            f"tables: {short_title(claim['table'])}, {claim['dataset']} {claim['classifier']}: "
            f"{claim['claim']}: {claim['ours_value']:.3f} against {claim['other_value']:.3f} "
            f"({claim['other']}), {claim['delta']:+.3f} "
            f"[{claim['delta_low']:+.3f}, {claim['delta_high']:+.3f}]: "
            f"{judged(claim)}",
            flush=True,
        )


def make(names: Iterable[str], params: Params) -> dict[str, pd.DataFrame]:
    """Make the named tables from the results of a run."""
    return {
        name: SPECS[name].maker(
            *(SOURCES[source](params) for source in SPECS[name].sources), params
        )
        for name in names
    }


def write(folder: Path, frames: dict[str, pd.DataFrame]) -> None:
    """Replace a folder by one with these tables as CSV files.

    Markdown and LaTeX are added only for the full set, since one table refers to another.
    """
    with atomic_folder(folder) as temporary:
        for name, frame in frames.items():
            frame.to_csv(temporary / f"{name}.csv", index=False, float_format="%.6g")
        if frames.keys() == SPECS.keys():
            write_exports(temporary)


def outcome_folders(params: Params) -> list[Path]:
    """Return the folders of this run's stages `ours` and `baseline`, in the order of its params."""
    return [
        HERE.outcome(dataset, classifier, name)
        for dataset in params.datasets
        for classifier in params.explained
        for name in [*map(ours_name, params.seeds_of(classifier)), *params.methods]
    ]


def cross_folders(params: Params) -> list[Path]:
    return [
        HERE.cross(dataset, trained, seed, scorer)
        for dataset in params.datasets
        for trained in params.classifiers
        for scorer in params.classifiers
        for seed in params.seeds_of(trained)
    ]


def stability_folders(params: Params) -> list[Path]:
    return [
        HERE.stability(dataset, classifier)
        for dataset in params.datasets
        for classifier in params.repeat.classifiers
    ]


def leakage_folders(params: Params) -> list[Path]:
    return [
        HERE.leakage(dataset, classifier)
        for dataset in params.datasets
        for classifier in params.explained
    ]


def randomisation_folders(params: Params) -> list[Path]:
    return [
        HERE.randomisation(dataset, classifier)
        for dataset in params.datasets
        for classifier in params.classifiers
    ]


def ablation_folders(params: Params) -> list[Path]:
    """Return the folders of `ours_ablation`, after that of the unchanged decomposition."""
    chosen = params.ablations
    return [
        HERE.ours(dataset, classifier, name)
        for dataset in chosen.datasets
        for classifier in chosen.classifiers
        for name in [str(params.seeds[0]), *params.variants_of(dataset, classifier)]
    ]


def classifier_folders(params: Params) -> list[Path]:
    """Return the folders of the explained classifiers, and of the twins of C = D."""
    named = [(d, c, "explained") for d in params.datasets for c in params.classifiers]
    named += [(d, c, "twin") for d in params.datasets for c in params.joint]
    return [HERE.classifier(*names) for names in named]


SOURCES: dict[str, Callable[[Params], list[Path]]] = {
    "outcomes": outcome_folders,
    "ablations": ablation_folders,
    "cross": cross_folders,
    "stability": stability_folders,
    "leakage": leakage_folders,
    "randomisation": randomisation_folders,
    "prepared": lambda params: [HERE.dataset(name) for name in params.datasets],
    "classifiers": classifier_folders,
}
"""Maps a source of tables to its folders in a run."""


if __name__ == "__main__":
    run_stage(main)
