"""Compare the evaluation of every method with the straightforward protocol, in speed and result.

Run as `python -m benchmarks.evaluation`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.experiments.samples import params_of
from benchmarks.speed import in_turns, small_decomposition
from dxai.config.schema import Params
from dxai.datasets.prepare import prepare
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.explain.base import Explainer
from dxai.explain.decomposition import DXAI
from dxai.explain.registry import build_explainer
from dxai.metrics import removal
from dxai.metrics.scorer import Scorer, chosen_images
from dxai.models.classifiers import build_network
from dxai.types import Batch

DATASET = "brats"
CURVES = ("beta", "deletion")
"""The curves of Tables 1 and 2."""
NEAR = 1e-4
"""Largest difference allowed between the probabilities of the two ways."""
NEAR_DESCENT = 1e-2
"""The same for the naive optimisation, whose steps amplify rounding: 1e-15 in float64 becomes some
1e-3 in float32."""


@dataclass(frozen=True)
class Case:
    """The material to evaluate: test images, a classifier, and the explainers of a profile."""

    params: Params
    batch: Batch
    classes: list[str]
    classifier: nn.Module
    explainers: dict[str, Explainer]

    def together(self, method: str) -> np.ndarray:
        """Attribute once, in batches, and score every level of the part, as the stages do.

        Returns
        -------
        ndarray
            (N, L, c): probabilities at each beta, then at each deleted share above 0.
        """
        explainer, evaluate = self.explainers[method], self.params.evaluate
        scorer = Scorer(self.classifier, None, self.classes, evaluate, evaluate.seed, CURVES)
        for first in range(0, len(self.batch.ids), evaluate.batch_size):
            batch = self.images(slice(first, first + evaluate.batch_size))
            found = explainer.attribute(batch.images, batch.labels, batch.index)
            sign, heat, part = next(explainer.by_sign(found, batch.images))
            scorer.add(method, sign, batch, part, heat=heat)
        outcomes = scorer.outcomes()
        outcomes = outcomes[(outcomes["curve"] == "beta") | (outcomes["level"] > 0)]
        outcomes = outcomes.sort_values(["index", "curve", "level"])
        columns = [f"p{k}" for k in range(len(self.classes))]
        return outcomes[columns].to_numpy().reshape(len(self.batch.ids), -1, len(columns))

    @torch.no_grad()
    def one_by_one(self, method: str, images: int | None = None) -> np.ndarray:
        """Like `together`, but one image at a time, attributed again for each beta and share."""
        explainer, evaluate = self.explainers[method], self.params.evaluate
        betas = torch.linspace(0, 1, evaluate.beta_steps + 1)
        rows = []
        for i in range(images or len(self.batch.ids)):
            one, levels = self.images(slice(i, i + 1)), []
            for beta in betas:
                found = explainer.attribute(one.images, one.labels, one.index)
                _, _, part = next(explainer.by_sign(found, one.images))
                levels.append(one.images - beta * part)
            for share in removal.DELETED[1:]:
                found = explainer.attribute(one.images, one.labels, one.index)
                _, heat, _ = next(explainer.by_sign(found, one.images))
                fill, seed = evaluate.deletion_fill, evaluate.seed
                levels += removal.delete(one.images, heat, [share], fill, one.index, seed)
            rows.append([self.classifier(x).softmax(1)[0].numpy() for x in levels])
        return np.array(rows)

    def images(self, which: slice) -> Batch:
        """Return a part of the batch."""
        b = self.batch
        return Batch(
            b.images[which], b.labels[which], b.index[which], b.ids[which], b.groups[which]
        )


def main() -> None:
    """Print both ways' seconds per image, their ratio, and their memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16, help="test images to use (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--methods", nargs="*", default=[], help="default: ours and all others")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        case = build(Path(folder), args.images)
        methods = args.methods or list(case.explainers)
        memory = {
            "together": peak(lambda: [case.together(m) for m in methods]),
            "one by one": peak(lambda: [case.one_by_one(m, images=1) for m in methods]),
        }
        totals = np.zeros(2)
        for method in methods:
            found: dict[str, np.ndarray] = {}
            ways = {"together": case.together, "one by one": case.one_by_one}
            jobs: dict[str, Callable[[], object]] = {
                name: partial(keep, found, name, way, method) for name, way in ways.items()
            }
            seconds = in_turns(jobs, args.rounds, time.process_time, warm_up=False)
            agree(method, *found.values())
            each = np.array(list(seconds.values())) / args.images
            totals += each
            report(method, *each)
    report("all methods", *totals)
    for name, megabytes in memory.items():
        print(f"memory: {name:<11} at most {megabytes:.0f} MiB more than before")


def build(folder: Path, images: int) -> Case:
    """Prepare the images and train the classifier briefly; the decomposition stays untrained."""
    params = params_of(DATASET, "quick")
    prepare(DATASET, params, folder / DATASET, folder / "unfinished", workers=1)
    train, test = (ShardedDataset(folder / DATASET, split) for split in ("train", "test"))
    torch.manual_seed(0)
    size = (train.channels, len(train.class_names), train.image_size)
    options = params.classifier_spec("resnet18").options
    network = build_network("resnet18", *size, **options).train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for step in range(30):
        batch = train.batch([(16 * step + i) * 7 % len(train) for i in range(16)])
        optimiser.zero_grad()
        F.cross_entropy(network(batch.images), batch.labels).backward()
        optimiser.step()
    network.eval().requires_grad_(False)
    batch = test.batch(chosen_images(len(test), images))
    explainers: dict[str, Explainer] = {
        "dxai": DXAI(*small_decomposition(params, batch, train.class_names), network)
    }
    for name, settings in params.methods.items():
        explainers[name] = build_explainer(name, network, settings, params.evaluate.seed)
    return Case(params, batch, train.class_names, network, explainers)


def keep(
    found: dict[str, np.ndarray], name: str, way: Callable[[str], np.ndarray], method: str
) -> None:
    """Evaluate `method` in one of the ways and store the result."""
    found[name] = way(method)


def agree(method: str, together: np.ndarray, one_by_one: np.ndarray) -> None:
    """Check that both ways give the same result."""
    apart = np.abs(together - one_by_one).max()
    same = (together.argmax(-1) == one_by_one.argmax(-1)).all()
    print(f"agreement: {method:<19}  probabilities within {apart:.1e}", flush=True)
    if apart > (NEAR_DESCENT if method == "naive" else NEAR) or not same:
        raise SystemExit(
            f"{method}: probabilities differ by {apart:.2g}, predictions equal: {same}"
        )


def report(name: str, together: float, one_by_one: float) -> None:
    """Print one line."""
    print(
        f"evaluating: {name:<19} {together:8.4f} s/image; one by one {one_by_one:8.4f}; "
        f"ratio {one_by_one / together:6.1f}",
        flush=True,
    )


def peak(job: Callable[[], object]) -> float:
    """Return the largest growth of a process's memory during `job`, in MiB."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_grow, args=(job, theirs))
    process.start()
    found = ours.recv()
    process.join()
    return found


def _grow(job: Callable[[], object], answer: Connection) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job()
    answer.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


if __name__ == "__main__":
    main()
