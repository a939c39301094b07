"""Measure the speed of explaining, relative to Captum's Integrated Gradients, and of scoring.

Run as `python -m benchmarks.speed`; see benchmarks/README.md. The whole evaluation:
benchmarks/evaluation.py; training: benchmarks/step.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dxai.config.params_file import load_params
from dxai.config.schema import EvaluateParams, Params
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.metrics.scorer import Scorer
from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import freeze
from dxai.training.step import generator_settings
from dxai.types import Batch

CLASSES = 3


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds to take the median of")
    parser.add_argument("--size", type=int, default=32, help="side of the images, pixels")
    parser.add_argument("--images", type=int, default=32, help="images to explain and evaluate")
    args = parser.parse_args()
    params = load_params()
    torch.manual_seed(0)
    classifier = build_network("resnet18", 1, CLASSES, args.size, width=16)
    batch = images(args.images, args.size)
    explaining(params, classifier, batch, args.rounds)
    evaluating(params, classifier, batch)


def explaining(params: Params, classifier: nn.Module, batch: Batch, rounds: int) -> None:
    """Print images per second of every method, and the ratio to Captum's Integrated Gradients."""
    explainers = {
        name: build_explainer(name, classifier, settings, 0)
        for name, settings in params.methods.items()
    }
    jobs: dict[str, Callable[[], object]] = {"dxai": decomposition_job(params, classifier, batch)}
    for name, explainer in explainers.items():
        jobs[name] = lambda e=explainer: e.attribute(batch.images, batch.labels, batch.index)
    seconds = in_turns(jobs, max(2, rounds // 2))
    for name, value in seconds.items():
        print(
            f"explaining: {name:<19} {len(batch.ids) / value:8.1f} images/s; "
            f"{seconds['ig'] / value:7.1f} times Captum's IG"
        )


def evaluating(params: Params, classifier: nn.Module, batch: Batch) -> None:
    """Print the seconds of all curves of a table row, with guards and intervals."""
    settings = EvaluateParams(batch_size=params.evaluate.batch_size, bootstrap=2000)
    scorer = Scorer(classifier, classifier, [str(i) for i in range(CLASSES)], settings, 0)

    def whole() -> None:
        scorer.add("m", "part", batch, batch.images)
        scorer.row("m", "part", None)

    seconds = in_turns({"all curves": whole}, 2)
    print(
        f"evaluating: all five curves, guards and intervals "
        f"{seconds['all curves'] / len(batch.ids):.4f} s/image and row"
    )


def decomposition_job(params: Params, classifier: nn.Module, batch: Batch) -> Callable[[], object]:
    """Return a function that explains `batch` with an untrained decomposition."""
    explainer = DXAI(*small_decomposition(params, batch, ["a", "b", "c"]), classifier)
    return lambda: explainer.attribute(batch.images, batch.labels, batch.index)


def small_decomposition(
    params: Params, batch: Batch, class_names: list[str]
) -> tuple[Decomposer, dict[str, Any]]:
    """Build an untrained decomposer for images like those of `batch`, and its info."""
    channels, size = batch.images.shape[1:3]
    classes = len(class_names)
    decomposer = Decomposer(channels, classes, size, **generator_settings(params.decompose))
    info = {"image_size": size, "channels": channels, "class_names": class_names}
    return freeze(decomposer), info


def images(count: int, size: int) -> Batch:
    """Generate images of noise."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 1, size, size, generator=generator) * 2 - 1
    names = [str(i) for i in range(count)]
    return Batch(pixels, torch.arange(count) % CLASSES, torch.arange(count), names, names)


def in_turns(
    jobs: dict[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
) -> dict[str, float]:
    """Return the median seconds of each job; jobs take turns, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + warm_up):
        for name, job in jobs.items():
            began = clock()
            job()
            if turn >= warm_up:
                times[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    main()
