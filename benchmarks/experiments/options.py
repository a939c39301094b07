"""Measure the effect of settings that change the mathematics, or its precision.

Run as `python -m benchmarks.experiments.options [OPTION ..]`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiments.samples import params_of
from benchmarks.experiments.tuning import results
from benchmarks.speed import CLASSES, images, in_turns
from benchmarks.step import Case
from dxai.config.schema import DecomposeParams
from dxai.datasets.prepare import prepare
from dxai.training.step import draw_inputs, train_step

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
"""Steps to time at once: a multiple of every `r1_every`."""


def main() -> None:
    """Print the speed of each option, then train with each and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("options", nargs="*", metavar="OPTION", help=", ".join(OPTIONS))
    parser.add_argument("--profile", default="quick", help="settings (%(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="steps per training (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timing rounds, or 0 (%(default)s)")
    args = parser.parse_args()
    if unknown := set(args.options) - set(OPTIONS):
        parser.error(f"unknown {', '.join(unknown)}; valid are {', '.join(OPTIONS)}")
    torch.set_num_threads(1)
    params = params_of(DATASET, args.profile)
    base = params.decompose_for(DATASET, next(iter(params.classifiers))).replace(
        steps=args.steps,
        log_every=args.steps,
        panel_every=args.steps,
        checkpoint_every=args.steps,
    )
    settings = {k: base.replace(**OPTIONS[k]) for k in args.options or OPTIONS}
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
        explained = next(iter(params.classifiers))
        for seed in args.seeds:
            for name, wanted in settings.items():
                (found,) = results(params, DATASET, explained, wanted, seed, folder, [])
                print(json.dumps({"option": name, "seed": seed} | found), flush=True)


def steps(case: Case, params: DecomposeParams) -> Any:
    """Return a function that runs `CYCLE` steps."""
    networks = case.networks(params)
    batch = images(params.batch_size, case.size)
    drawn = draw_inputs(params, 0, 0, batch.labels, CLASSES)
    return lambda: [
        train_step(networks, params, batch.images, batch.labels, drawn, number)
        for number in range(CYCLE)
    ]


if __name__ == "__main__":
    main()
