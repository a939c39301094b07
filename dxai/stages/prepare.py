"""Prepare the images of one dataset as shards with a data card: DVC stage `prepare`."""

from __future__ import annotations

from dxai.config.params_file import load_params
from dxai.config.schema import Params
from dxai.datasets.parallel_reader import Reader, Readers
from dxai.datasets.prepare import prepare
from dxai.paths import HERE
from dxai.stages import run_stage


def main(dataset: str) -> None:
    """Write data/prepared/<dataset>/ and print the number of images in each split."""
    params, out = load_params(), HERE.dataset(dataset)

    def on_ray(reader: Reader) -> Readers:
        return _readers(dataset, params, reader)

    elsewhere = on_ray if params.evaluation.executor == "ray" else None
    manifest = prepare(dataset, params, out, HERE.unfinished_data, elsewhere=elsewhere)
    for split, classes in manifest["counts"].items():
        counts = ", ".join(f"{name} {count}" for name, count in classes.items())
        print(f"prepare {dataset}: {split} {sum(classes.values())} ({counts})")


def _readers(dataset: str, params: Params, reader: Reader) -> Readers:
    from dxai.stages.readers import RayReaders  # it loads what trainings run with

    log = HERE.unfinished_data / dataset / "ray.log"
    print(f"prepare {dataset}: reading on Ray (log: {log})", flush=True)
    return RayReaders(reader, params.evaluation, log)


if __name__ == "__main__":
    run_stage(main, alone=True)
