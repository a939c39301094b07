"""Kill processes at random, and compare the results with undisturbed ones.

Run as `make soak`, `python -m tests.soak trainings` or `python -m tests.soak runs`. It prints a
line for each kill, writes all of them to <what>.json in the folder `--out`, and exits with 1 if a
result differs.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from dxai.utils.files import write_json
from tests.soak import runs, trainings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    of_trainings = commands.add_parser("trainings", help="trainings on Ray, one after the other")
    of_trainings.add_argument("--steps", type=int, default=1000, help="steps of each training")
    of_runs = commands.add_parser("runs", help="two runs of the benchmark at a time")
    of_runs.add_argument("--local", action="store_true", help="one user's services, no cluster")
    for command, kills in ((of_trainings, 24), (of_runs, 20)):
        command.add_argument("--kills", type=int, default=kills, help="(default: %(default)s)")
        command.add_argument("--seed", type=int, help="seed of processes and moments")
        command.add_argument("--out", type=Path, default=Path(".work/soak"))
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    if args.what == "trainings":
        equal, found = trainings.soak(args.kills, chance, args.steps)
    else:
        equal, found = runs.soak(args.kills, chance, not args.local)
    write_json(args.out / f"{args.what}.json", {"seed": seed} | found)
    sys.exit(not (equal and len(found["kills"]) == args.kills))


if __name__ == "__main__":
    main()
