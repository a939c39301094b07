"""Prepare the images of one dataset as shards with a data card: DVC stage `prepare`."""

from __future__ import annotations

from dxai.config.params_file import load_params
from dxai.datasets.prepare import prepare
from dxai.paths import HERE
from dxai.stages import run_stage


def main(dataset: str) -> None:
    """Write data/prepared/<dataset>/ and print the number of images in each split."""
    out = HERE.dataset(dataset)
    manifest = prepare(dataset, load_params(), out, HERE.unfinished_data)
    for split, classes in manifest["counts"].items():
        counts = ", ".join(f"{name} {count}" for name, count in classes.items())
        print(f"prepare {dataset}: {split} {sum(classes.values())} ({counts})")


if __name__ == "__main__":
    run_stage(main)
