"""Measure the speed and memory of a training step, relative to the same modules without its savings
and to its own convolutions alone.

Run as `python -m benchmarks.step [PROFILE:SIZE ..]`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.experiments.samples import params_of
from benchmarks.speed import CLASSES, images, in_turns
from dxai.config.schema import DecomposeParams
from dxai.models.classifiers import build_network
from dxai.training.step import ALL, Networks, Savings, build_networks, draw_inputs, train_step
from dxai.utils.memory import keep_freed

CASES = ("paper:64", "quick:64", "quick:32")
NONE = Savings(one_pass=False, real_once=False, frozen=False)
CONVOLUTIONS = ("aten.convolution.default", "aten.convolution_backward.default")
"""The operators that compute every convolution of a step; gradients of gradients use both."""
CYCLES = """
import sys, time
import torch
from benchmarks.step import ALL, Case, cycle
from dxai.utils.memory import keep_freed
torch.set_num_threads(1)
keep_freed()
case = Case.of(sys.argv[1])
run = cycle(case, ALL, False)
run()
print(case.params.batch_size, case.params.r1_every, flush=True)
for _ in sys.stdin:
    began = time.process_time()
    losses = run()[-1]
    print(time.process_time() - began, float(losses["total"]), flush=True)
"""
"""Program of a checkout: batch and steps of a cycle; then, for each line of its input, the seconds
of a cycle and its last loss."""
CHECKOUT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Case:
    """A profile's networks, an image size and a batch size (0: the profile's own)."""

    profile: str
    size: int
    batch: int = 0

    @classmethod
    def of(cls, text: str) -> Case:
        """Parse `PROFILE:SIZE` or `PROFILE:SIZE:BATCH`."""
        profile, *numbers = text.split(":")
        return cls(profile, *map(int, numbers))

    @property
    def params(self) -> DecomposeParams:
        """The profile's settings of the decomposition, with this batch."""
        params = params_of("textures", self.profile).decompose
        return params.replace(batch_size=self.batch or params.batch_size)

    def __str__(self) -> str:
        return f"{self.profile} {self.size} px, {self.params.batch_size} images"

    def networks(self, params: DecomposeParams | None = None) -> Networks:
        """Build untrained networks; the classifier is the profile's first."""
        spec = next(iter(params_of("textures", self.profile).classifiers.values()))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            classifier = build_network(spec.arch, 1, CLASSES, self.size, **spec.options)
        return build_networks(params or self.params, 1, CLASSES, self.size, classifier, seed=0)


def main() -> None:
    """Print all measurements of each case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("cases", nargs="*", default=CASES, metavar="PROFILE:SIZE[:BATCH]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--switches", action="store_true", help="also switch off each saving alone")
    parser.add_argument(
        "--before", type=Path, metavar="DIR", help="only compare with this other checkout"
    )
    parser.add_argument("--peak", choices=("ours", "plain"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.before and not (args.before / "benchmarks/step.py").is_file():
        parser.error(f"--before: {args.before} is no checkout of this project")
    torch.set_num_threads(1)
    keep_freed()  # as every stage does
    for case in map(Case.of, args.cases):
        if args.peak:
            print(peak_bytes(case, args.peak == "plain"))
        elif args.before:
            compare(case, args.before, args.rounds)
        else:
            report(case, args.rounds, args.switches)


def report(case: Case, rounds: int, switches: bool) -> None:
    """Print losses, steps per second, roofline and memory of one case."""
    params, title = case.params, str(case)
    ours, plain = losses_of(case, plain=False), losses_of(case, plain=True)
    apart = max(abs(ours[k] - plain[k]) / max(abs(ours[k]), 1e-6) for k in ours)
    print(f"{title}: losses of two steps differ by at most {apart:.1e} of their value", flush=True)
    variants: dict[str, tuple[Savings, bool]] = {"ours": (ALL, False), "plain": (NONE, True)}
    if switches:
        variants |= {"NCHW": (ALL, True)}
        for field in dataclasses.fields(Savings):
            variants[f"no {field.name}"] = (dataclasses.replace(ALL, **{field.name: False}), False)
    jobs: dict[str, Callable[[], object]] = {
        name: cycle(case, *variant) for name, variant in variants.items()
    }
    jobs["convolutions"] = convolutions(jobs["ours"], torch.channels_last)
    jobs["plain convolutions"] = convolutions(jobs["plain"], torch.contiguous_format)
    # The processor time of a single thread is independent of other work on the machine.
    measured = in_turns(jobs, rounds, time.process_time)
    seconds = {k: v / params.r1_every for k, v in measured.items()}
    for name, value in seconds.items():
        print(
            f"{title}: {name:<18} {1 / value:8.3f} steps/s; "
            f"{value / seconds['ours']:5.2f} times the time of ours",
            flush=True,
        )
    alone = seconds["ours"] / seconds["convolutions"]
    print(f"{title}: ours takes {alone:.2f} times the time of its convolutions", flush=True)
    ours_memory, plain_memory = (memory_per_image(case, which) for which in ("ours", "plain"))
    print(
        f"{title}: {ours_memory / 2**20:.1f} MiB an image; plain {plain_memory / 2**20:.1f} MiB",
        flush=True,
    )


def compare(case: Case, before: Path, rounds: int) -> None:
    """Print the time of a step relative to that of another checkout, in turns."""
    checkouts = (before.absolute(), CHECKOUT)
    programs = [cycles(case, folder) for folder in checkouts]
    (batch, steps), now = (answer(program) for program in programs)
    if now != [batch, steps]:
        raise SystemExit(f"{case}: {before} has other settings, batches of {batch:.0f}")
    seconds: list[list[float]] = [[], []]
    losses = [0.0, 0.0]
    for _ in range(rounds):
        for k, program in enumerate(programs):
            print(file=program.stdin, flush=True)
            spent, losses[k] = answer(program)
            seconds[k].append(spent)
    for program in programs:
        program.communicate()
    medians = [statistics.median(found) for found in seconds]
    print(
        f"{case}: {medians[1] / medians[0]:.3f} times the time of {before}; loss after "
        f"{(rounds + 1) * steps:.0f} steps {losses[0]:.6g} there, {losses[1]:.6g} here",
        flush=True,
    )


def cycles(case: Case, checkout: Path) -> subprocess.Popen[str]:
    """Start the program `CYCLES` of a checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", CYCLES, f"{case.profile}:{case.size}:{case.batch}"],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(program: subprocess.Popen[str]) -> list[float]:
    """Return the numbers of a program's next line."""
    assert program.stdout
    if not (line := program.stdout.readline()):
        raise SystemExit(program.wait() or 1)  # it has said why
    return [float(number) for number in line.split()]


def contiguous(networks: Networks) -> Networks:
    """Convert every network to the usual memory format, NCHW."""
    parts = (
        networks.decomposer,
        networks.discriminator,
        networks.average,
        networks.average_discriminator,
        networks.classifier,
    )
    for part in parts:
        assert part is not None
        part.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for decomposer in (networks.decomposer, networks.average):
        decomposer.generator.memory_format = torch.contiguous_format
    return networks


def stepper(case: Case, savings: Savings, nchw: bool) -> Callable[[int], dict[str, Tensor]]:
    """Return a function that runs the step with a given number, always with the same images."""
    params = case.params
    networks = contiguous(case.networks()) if nchw else case.networks()
    assert networks.classifier is not None
    if not savings.frozen:  # the classifier accumulates gradients too
        networks.classifier.requires_grad_(True)
    batch = images(params.batch_size, case.size)
    drawn = draw_inputs(params, 0, 0, batch.labels, CLASSES)
    x, y = batch.images, batch.labels
    return lambda step: train_step(networks, params, x, y, drawn, step, savings=savings)


def cycle(case: Case, savings: Savings, nchw: bool) -> Callable[[], list[dict[str, Tensor]]]:
    """Return a function that runs one cycle of steps: one with R1, the others without."""
    step = stepper(case, savings, nchw)
    return lambda: [step(number) for number in range(case.params.r1_every)]


def losses_of(case: Case, plain: bool) -> dict[str, float]:
    """Return the losses of two steps from equal weights."""
    step = stepper(case, NONE, True) if plain else stepper(case, ALL, False)
    found = {}
    for number in (0, 1):
        found |= {f"{name} {number}": float(value) for name, value in step(number).items()}
    return found


# ------------------------------------------------------------------------------------ roofline
class Convolutions(TorchDispatchMode):
    """Count the convolutions inside this context, by operator and arguments, and their cost.

    Attributes
    ----------
    calls : Counter
        Counts of (operator, arguments), where a shape represents a tensor.
    operations : int
        Multiplications and additions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, tuple[Any, ...]]] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **kwargs or {})
        if str(func) not in CONVOLUTIONS:
            return result
        self.calls[func, tuple(_described(value) for value in args)] += 1
        # Each pixel of the output is multiplied by the weights of its channel.
        if str(func) == CONVOLUTIONS[0]:
            output, weight, products = result, args[1], 1
        else:  # the gradients with respect to image and weights, where requested
            output, weight, products = args[0], args[2], sum(args[-1][:2])
        self.operations += 2 * products * output.numel() * weight.numel() // weight.shape[0]
        return result


def _described(value: Any) -> Any:
    """Make an argument hashable: a tensor becomes its shape, a list a tuple."""
    if isinstance(value, Tensor):
        return value.shape
    return tuple(value) if isinstance(value, list) else value


def _made(value: Any, memory_format: torch.memory_format) -> Any:
    """Return a random tensor for a shape; return anything else unchanged."""
    if not isinstance(value, torch.Size):
        return list(value) if isinstance(value, tuple) else value
    made = torch.randn(value)
    return made.contiguous(memory_format=memory_format) if made.dim() == 4 else made


def convolutions(
    run: Callable[[], object], memory_format: torch.memory_format
) -> Callable[[], object]:
    """Return a function that repeats the convolutions of `run`, and nothing else."""
    run()  # the first step creates the optimisers' state
    with Convolutions() as seen:
        run()
    calls = [
        (function, [_made(value, memory_format) for value in values], count)
        for (function, values), count in seen.calls.items()
    ]

    def alone() -> None:
        for function, values, count in calls:
            for _ in range(count):
                function(*values)

    return alone


# ------------------------------------------------------------------------------------ memory
def memory_per_image(case: Case, which: str) -> float:
    """Return the growth of a step's peak memory per image of the batch, in bytes."""
    few, more = max(1, case.params.batch_size // 4), max(2, case.params.batch_size // 2)
    peaks = {}
    for batch in (few, more):
        command = [sys.executable, "-m", "benchmarks.step", f"{case.profile}:{case.size}:{batch}"]
        command += ["--peak", which]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[batch] = int(done.stdout)
    return (peaks[more] - peaks[few]) / (more - few)


def peak_bytes(case: Case, plain: bool) -> int:
    """Return this process's peak memory in a step with R1, once the optimisers have state."""
    step = stepper(case, NONE if plain else ALL, plain)
    step(0)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    step(0)
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main()
