"""What settings that change the mathematics, or its precision, do to speed and to the result.

Run as `python -m benchmarks.options [OPTION ..]`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.samples import params_of
from benchmarks.speed import CLASSES, images, in_turns
from benchmarks.step import Case
from dxai.datasets import ShardedDataset, prepare
from dxai.evaluate.scores import Scorer
from dxai.explain.decomposition import DXAI
from dxai.models.checkpoint import freeze
from dxai.models.classifiers import build_classifier
from dxai.params import DecomposeParams, Params
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import initial_seed, train_classifier
from dxai.training.loop import train
from dxai.training.step import build_networks, draw, train_step
from dxai.training.watching import Watcher

DATASET = "textures"
BASE = "as it is"
OPTIONS: dict[str, dict[str, Any]] = {
    BASE: {},
    "r1_every 1": {"r1_every": 1},
    "r1_every 16": {"r1_every": 16},
    "branch_width 7": {"branch_width": 7},
    "discriminator_width 8": {"discriminator_width": 8},
    "discriminator_width 32": {"discriminator_width": 32},
    "precision bf16": {"precision": "bf16"},
    "compile": {"compile": True},
}
CYCLE = 16
"""Steps that are timed at once: a multiple of every `r1_every`."""


def main() -> None:
    """Print the speed of each option, then train with each and print what comes of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("options", nargs="*", metavar="OPTION", help=", ".join(OPTIONS))
    parser.add_argument("--profile", default="quick", help="settings (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="of each training (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; 0: none (%(default)s)")
    args = parser.parse_args()
    if unknown := set(args.options) - set(OPTIONS):
        parser.error(f"unknown {', '.join(unknown)}; valid are {', '.join(OPTIONS)}")
    torch.set_num_threads(1)
    params = params_of(DATASET, args.profile)
    base = dataclasses.replace(
        params.decompose_for(DATASET, next(iter(params.classifiers))),
        steps=args.steps,
        log_every=args.steps,
        panel_every=args.steps,
        checkpoint_every=args.steps,
    )
    settings = {k: dataclasses.replace(base, **OPTIONS[k]) for k in args.options or OPTIONS}
    if args.rounds:
        case = Case(args.profile, params.prepare.image_size)
        seconds = in_turns(
            {k: steps(case, v) for k, v in settings.items()}, args.rounds, time.process_time
        )
        first = next(iter(seconds))
        for name, value in seconds.items():
            print(f"{name}: {seconds[first] / value:.2f} times as fast as {first!r}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(DATASET, params, folder / "data", folder / "work")
        classifier = trained_classifier(params, folder)
        for seed in args.seeds:
            for name, wanted in settings.items():
                found = result(params, wanted, seed, classifier, folder, name)
                print(json.dumps({"option": name, "seed": seed} | found), flush=True)


def steps(case: Case, params: DecomposeParams) -> Any:
    """A function that takes `CYCLE` steps."""
    networks = case.networks(params)
    batch = images(params.batch_size, case.size)
    drawn = draw(params, 0, 0, batch.labels, CLASSES)
    return lambda: [
        train_step(networks, params, batch.images, batch.labels, drawn, number)
        for number in range(CYCLE)
    ]


def trained_classifier(params: Params, folder: Path) -> nn.Module:
    """The profile's first classifier, trained as the pipeline trains it."""
    data, validation = (ShardedDataset(folder / "data", split) for split in ("train", "validation"))
    settings, spec = params.classifier_for(DATASET), next(iter(params.classifiers.values()))
    torch.manual_seed(initial_seed(settings.seed))
    shape = (data.channels, len(data.class_names), data.image_size)
    network = build_classifier(spec.arch, *shape, **spec.options)
    checkpoint = Checkpoint(folder / "classifier")
    train_classifier(network, settings, data, validation, settings.seed, checkpoint, Watcher())
    return freeze(network)


def result(
    params: Params,
    wanted: DecomposeParams,
    seed: int,
    classifier: nn.Module,
    folder: Path,
    name: str,
) -> dict[str, Any]:
    """AUC with its interval and x_hat in dB, on all validation images, of one training."""
    data, validation = (ShardedDataset(folder / "data", split) for split in ("train", "validation"))
    shape = (data.channels, len(data.class_names), data.image_size)
    networks = build_networks(wanted, *shape, classifier, seed)
    checkpoint = Checkpoint(folder / f"{name}-{seed}")
    history = train(networks, wanted, data, validation, seed, checkpoint, Watcher())
    scorer = Scorer(classifier, None, data.class_names, params.evaluate, params.evaluate.seed)
    info = {
        "channels": data.channels,
        "class_names": data.class_names,
        "image_size": data.image_size,
    }
    explainer = DXAI(networks.average, info, classifier, params.evaluate.seed)
    for batch in validation.batches(params.evaluate.batch_size):
        found = explainer.explain(batch.images, batch.labels, batch.index)
        scorer.add("dxai", "part", batch, found.distinct, found.reconstruction)
    row = scorer.row("dxai", "part", None)
    return {key: round(row[key], 3) for key in ("auc", "auc_low", "auc_high", "psnr_db")} | {
        "minutes": round(history[-1]["seconds"] / 60, 1)
    }


if __name__ == "__main__":
    main()
