"""Measure the cost of Ray and the gain from a second worker, in steady state, in turns.

Run as `python -m benchmarks.workers`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from dxai.config.params_file import load_params
from dxai.config.schema import ClassifierSpec, TrainingParams
from dxai.datasets.prepare import prepare
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.serialization import save_classifier
from dxai.training.classifier import ClassifierJob
from dxai.training.decomposition import DecompositionJob
from dxai.training.runtime.supervisor import launch

PLAIN, ONE = "plain loop", "Ray, 1 worker"
SAME, HALF = "Ray, 2 workers, same batch each", "Ray, 2 workers, half the batch each"
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {"executor": "local"},
    ONE: {},
    SAME: {"workers": 2},
    HALF: {"workers": 2},
}
"""Settings of each variant; every worker has one thread."""
LOG_EVERY = 10


def main() -> None:
    """Print images per second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--steps", type=int, default=150, help="steps of each training")
    args = parser.parse_args()
    params = load_params()
    (dataset,) = params.datasets
    settings = params.decompose.replace(
        steps=args.steps,
        log_every=LOG_EVERY,
        panel_every=10**9,
        checkpoint_every=10**9,
    )
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(dataset, params, folder / "data", folder / "unfinished")
        classifier = untrained(folder / "data")
        for turn, (name, where) in itertools.product(range(args.rounds), VARIANTS.items()):
            images = settings.batch_size * (2 if name == SAME else 1)
            wanted = settings.replace(batch_size=images)
            job = DecompositionJob(str(folder / "data"), wanted, classifier, turn)
            training = TrainingParams(
                cpus_per_worker=1, device="cpu", storage=str(folder / "checkpoints"), **where
            )
            state, checkpoint = launch(job, name, name, folder / "console", training)
            checkpoint.remove()
            rates[name].append(images / step_seconds(state["history"]))
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in median.items():
        runs = ", ".join(f"{rate:.1f}" for rate in rates[name])
        print(f"{name:36} {value:6.1f} images/s  ({runs})")
    print(f"Ray's overhead                {median[PLAIN] / median[ONE] - 1:+.1%} of a step")
    print(f"weak scaling, same batch each {median[SAME] / median[ONE]:.2f} times one worker")
    print(f"strong scaling, half each     {median[HALF] / median[ONE]:.2f} times one worker")


def untrained(data: Path) -> bytes:
    """Write a model file of the Simple network; its weights do not matter."""
    spec, settings = ClassifierSpec(arch="simple"), load_params().classifier
    train = ShardedDataset(data, "train")
    network, info = ClassifierJob(str(data), spec, settings, 0).network(train)
    path = data.with_name("classifier.pt")
    save_classifier(path, network, info | {"class_names": train.class_names})
    return path.read_bytes()


def step_seconds(history: list[dict[str, Any]]) -> float:
    """Return the median seconds of a step over the last three quarters of a training."""
    later = history[len(history) // 4 :]
    spent = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(later)]
    return statistics.median(spent) / LOG_EVERY


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
