"""Measure scoring at 256 px or another size: memory, speed, and a kill in the middle.

Run as `python -m benchmarks.scoring --patches 600`; see benchmarks/README.md. The images are drawn
DOTA patches, the networks those of `quick` or narrower ones, trained for an instant: what they have
learnt changes neither speed nor memory. The stages are the real ones, each in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from dxai.config.params_file import format_params
from dxai.config.profiles import load_profile, select_profile
from dxai.datasets.samples import dota
from dxai.paths import HERE, MANIFEST, SUMMARY, ours_name
from dxai.stages import actors, classifier, decompose, prepare
from dxai.utils.files import read_json

NAME = "resnet18"
ALL = 20_696
"""Patches of the test set of the paper's DOTA."""
TEST = 0.6
"""Share of the drawn images that is scored."""
KEPT = 8.0
"""Patches of a drawn image, at least on average; those with a part of a car are left out."""
SETTINGS = {
    "classifier.epochs": "1",
    "decompose.steps": "1",
    "decompose.batch_size": "2",
    "repeat": "{classifiers: [], seeds: []}",
    "training.executor": "local",
    "evaluate.batch_size": "16",
    "datasets.dota.options.test": str(TEST),
}
SMALL = {
    f"classifiers.{NAME}.options.width": "4",
    "decompose.branch_width": "2",
    "decompose.branch_max_width": "8",
    "decompose.mapping_width": "32",
    "decompose.discriminator_width": "4",
    "evaluate.maps": "none",
}
"""Networks that let a CPU score thousands of patches."""
ITEMS = {
    "random": ("baseline", "random", "random"),
    "gradcam": ("baseline", "gradcam", "gradcam"),
    "ours": ("score_decomposition", "0", ours_name("0")),
}
"""Stage, its last argument and the folder of its outcome."""
BATCH, ROUNDS = 4, 3
"""Images of a piece, and rounds in turns, where actors are compared."""


def main() -> None:
    """Print peak memory and speed of each method, and whether a killed run ends the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=600, help="to score (%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="of the images (%(default)s)")
    parser.add_argument("--methods", nargs="+", choices=ITEMS, default=[*ITEMS])
    parser.add_argument("--actors", action="store_true", help="one actor on Ray beside two")
    parser.add_argument("--small", action="store_true", help="narrow networks; keep no maps")
    args = parser.parse_args()
    SETTINGS["prepare.image_size"] = str(args.size)
    if args.small:
        SETTINGS.update(SMALL)
    with tempfile.TemporaryDirectory(prefix="scoring-") as folder:
        os.chdir(folder)
        made = multiprocessing.get_context("fork").Process(target=make, args=(args.patches,))
        made.start()  # a stage's peak begins with the memory of the process that starts it
        made.join()
        if made.exitcode:
            raise SystemExit(f"the images and networks were not made: exit code {made.exitcode}")
        if args.actors:
            for method in args.methods:
                compare(method, args.patches)
            return
        for method in args.methods:
            report(method, args.patches, *scored(method))
        killed(args.methods[0], args.patches)


def make(patches: int) -> None:
    """Draw and prepare the images, and train both classifiers and a decomposition."""
    dota.IMAGES = math.ceil(patches / TEST / KEPT) + 4
    Path("params.yaml").write_text(format_params(load_profile("quick")))
    select(patches)
    prepare.main("dota")
    counts = read_json(HERE.dataset("dota") / MANIFEST)["counts"]["test"]
    if (found := sum(counts.values())) < patches:
        raise SystemExit(f"only {found} patches were drawn, not {patches}")
    for role in classifier.ROLES:
        classifier.main("dota", NAME, role)
    decompose.main("dota", NAME, "0")


def select(patches: int, **changed: str) -> None:
    """Write params.yaml."""
    settings = SETTINGS | {"evaluate.images": str(patches)} | changed
    methods = [name for name in ITEMS if name != "ours"]
    select_profile("params.yaml", "quick", ["dota"], [NAME], methods, [0], settings)


def start(method: str, log: IO[str] | None = None) -> subprocess.Popen[bytes]:
    """Start the stage of a method; `log` gets what it prints."""
    stage, last, _ = ITEMS[method]
    command = [sys.executable, "-m", f"dxai.stages.{stage}", "dota", NAME, last]
    return subprocess.Popen(command, stdout=log)


def scored(method: str) -> tuple[float, float, float]:
    """Score with one method; return its seconds, processor seconds and peak memory in MiB."""
    began, process = time.monotonic(), start(method)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{method} ended with {process.returncode}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def report(method: str, patches: int, seconds: float, processor: float, peak: float) -> None:
    found = read_json(outcome(method) / SUMMARY)["images"]
    if found != patches:
        raise SystemExit(f"{found} patches were scored, not {patches}")
    print(
        f"{title(method)} {found} images, {peak:5.0f} MiB at most, "
        f"{found / seconds:6.3f} images/s, {processor / found:6.3f} processor s an image; "
        f"{ALL} such images: {processor / found * ALL / 3600:5.1f} core hours",
        flush=True,
    )


def title(method: str) -> str:
    return f"scoring {SETTINGS['prepare.image_size']} px: {method:<8}"


def compare(method: str, patches: int) -> None:
    """Compare the speed of two actors, of one thread each, with that of one, and their files."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    files = []
    for workers in (1, 2) * ROUNDS:
        on_ray = {"evaluation.executor": "ray", "evaluation.workers": str(workers)}
        select(patches, **on_ray, **{"evaluate.batch_size": str(BATCH)})
        rates[workers].append(rate(method, workers))
        files.append(content(method))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    shown = {n: ", ".join(f"{each:.3f}" for each in found) for n, found in rates.items()}
    print(
        f"{title(method)} one actor {shown[1]} images/s, two {shown[2]}: "
        f"{statistics.median(ratios):.2f} times; equal files: {all(f == files[0] for f in files)}",
        flush=True,
    )


def rate(method: str, workers: int) -> float:
    """Return the images a second of actors on Ray, from as many pieces on as there are actors.

    The last pieces of two actors end together where their number is even; else one waits.
    """
    printed = Path("stage.log")
    with printed.open("w") as log:
        process = start(method, log)
        seen = [(0.0, 0)]
        while process.poll() is None:
            pieces = len(list(HERE.unfinished_scores.rglob("0*.npz")))
            if pieces > seen[-1][1]:
                seen.append((time.monotonic(), pieces))
            time.sleep(0.02)
    if process.returncode:
        said = "".join(printed.read_text().splitlines(keepends=True)[-5:])
        raise SystemExit(f"{said}{method} ended with {process.returncode}")
    if actors.ON_RAY not in printed.read_text():
        raise SystemExit(f"{method}: too little work for Ray to start; take more --patches")
    began, first = next(each for each in seen if each[1] >= workers)
    ended, last = seen[-1]
    return (last - first) * BATCH / (ended - began)


def killed(method: str, patches: int) -> None:
    """Kill a run half way; what the next one writes must be the same."""
    whole = content(method)
    half = max(1, patches // int(SETTINGS["evaluate.batch_size"]) // 2)
    process = start(method)
    while len(list(HERE.unfinished_scores.rglob("0*.npz"))) < half:
        if process.poll() is not None:
            raise SystemExit("it ended before it was killed")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(list(HERE.unfinished_scores.rglob("0*.npz")))
    scored(method)
    same = content(method) == whole
    print(f"killed with {kept} pieces, and started again: equal files: {same}", flush=True)
    if not same:
        raise SystemExit(1)


def content(method: str) -> dict[str, Any]:
    """Return the files of an outcome but for the summary, which has times."""
    return {p.name: p.read_bytes() for p in outcome(method).iterdir() if p.suffix != ".json"}


def outcome(method: str) -> Path:
    return HERE.outcome("dota", NAME, ITEMS[method][2])


if __name__ == "__main__":
    main()
