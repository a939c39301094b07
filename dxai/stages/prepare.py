"""Stage `prepare`: raw images of one dataset -> shards and data card in data/prepared/DATASET."""

from __future__ import annotations

from dxai.config.schema import load_params
from dxai.datasets.prepare import prepare
from dxai.stages import DATA, UNFINISHED, run_stage


def main(dataset: str) -> None:
    """Prepare one dataset of params.yaml and print how many images each split has."""
    manifest = prepare(dataset, load_params(), DATA / dataset, UNFINISHED)
    for split, classes in manifest["counts"].items():
        counts = ", ".join(f"{name} {count}" for name, count in classes.items())
        print(f"prepare {dataset}: {split} {sum(classes.values())} ({counts})")


if __name__ == "__main__":
    run_stage(main, "dataset")
