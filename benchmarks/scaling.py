"""Break down the time and memory of a training step, and predict the gain from more workers.

Run as `python -m benchmarks.scaling`; see benchmarks/README.md. docs/scaling.md shows its output.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed import CLASSES, images, in_turns
from benchmarks.step import Case, Convolutions
from dxai.training import losses
from dxai.training.step import Networks, average, blends, draw_inputs, train_step

PROFILED = ("paper:256:1", "paper:64:2", "quick:32")
SIZED = ("quick:32", "standard:64", "paper:256")
WORKERS = (8, 64)
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Link:
    """A network between workers, with its bandwidth and latency. Assumed, not measured."""

    name: str
    bandwidth: float
    latency: float

    def all_reduce(self, size: float, workers: int) -> float:
        """Return the seconds of a ring all-reduce: each worker sends its share 2 (N - 1) times."""
        hops = 2 * (workers - 1)
        return hops * (size / workers / self.bandwidth + self.latency)


LINKS = (
    Link("10 Gb/s", 1.25e9, 50e-6),
    Link("100 Gb/s", 12.5e9, 10e-6),
    Link("NVLink", 200e9, 3e-6),
)
GPU_FLOPS, GPU_LAUNCH = 20e12, 5e-6
"""Assumed, not measured: operations per second of a GPU in such convolutions, and the seconds that
launching an operator costs at least."""


def main() -> None:
    """Print all figures in docs/scaling.md."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("cases", nargs="*", default=PROFILED, metavar="PROFILE:SIZE[:BATCH]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for case in map(Case.of, args.cases):
        profile(case, args.rounds)
    for case in map(Case.of, SIZED):
        bandwidth(case)
    strong(Case.of("quick:32"), args.rounds)


# ------------------------------------------------------------------------------------ one step
def profile(case: Case, rounds: int) -> None:
    """Print time and bytes of the parts of a step."""
    title, batch_size = str(case), case.params.batch_size
    jobs = parts(case)
    seconds = in_turns(jobs, rounds, time.process_time)
    rare = case.params.r1_every
    spent = {
        "generator forward": seconds["G"],
        "generator backward": seconds["G and back"] - seconds["G"],
        "D on real images": seconds["D real"],
        "R1": (seconds["D real and R1"] - seconds["D real"]) / rare,
        "D on blends": seconds["D fake"],
        "D in G's update": seconds["D passed"],
        "C in G's update": seconds["C passed"],
        "both optimisers": seconds["optimisers"],
        "averages": seconds["averages"],
    }
    whole = (seconds["step with R1"] + (rare - 1) * seconds["step"]) / rare
    for name, value in spent.items():
        print(f"{title}: {name:<20} {1000 * value:9.1f} ms {100 * value / whole:5.1f}%")
    parts_sum = sum(spent.values())
    print(f"{title}: {'sum; whole step':<20} {1000 * parts_sum:9.1f} ms; {1000 * whole:.1f} ms")
    for name in ("G", "D real and R1", "D fake", "D passed", "C passed"):
        kept = saved_bytes(jobs[name]) / batch_size
        print(f"{title}: kept for the way back, {name:<14} {kept / MIB:8.2f} MiB an image")


def parts(case: Case) -> dict[str, Callable[[], object]]:
    """Return a function for each part of a step and for the whole step."""
    params, networks = case.params, case.networks()
    batch = images(params.batch_size, case.size)
    x, y = batch.images, batch.labels
    drawn = draw_inputs(params, 0, 0, y, CLASSES)
    d, c = networks.discriminator, networks.classifier
    assert c is not None
    # A first step creates gradients, the optimisers' state, and the blends that parts start from.
    train_step(networks, params, x, y, drawn, 0)
    found = blends(networks, params, x, y, drawn)
    fakes = torch.cat([found.y, found.other]).detach()

    def decompose() -> Tensor:
        found = blends(networks, params, x, y, drawn)
        return torch.cat([found.y, found.other])

    def on_real(penalty: bool) -> None:
        real = x.detach().requires_grad_(penalty)
        head = d(real)[:, 0]
        loss = losses.adversarial_real(head)
        (loss + losses.r1_penalty(head, real) if penalty else loss).backward()

    def passed(network: torch.nn.Module, weights: Iterable[Tensor]) -> None:
        weights = list(weights)
        for weight in weights:
            weight.requires_grad_(False)
        network(fakes.clone().requires_grad_()).sum().backward()
        for weight in weights:
            weight.requires_grad_(True)

    return {
        "G": decompose,
        "G and back": lambda: decompose().sum().backward(),
        "D real": lambda: on_real(False),
        "D real and R1": lambda: on_real(True),
        "D fake": lambda: d(fakes).sum().backward(),
        "D passed": lambda: passed(d, d.parameters()),
        "C passed": lambda: passed(c, ()),
        "optimisers": lambda: (networks.optimiser.step(), networks.optimiser_d.step()),
        "averages": lambda: average(networks, params, 0),
        "step with R1": lambda: train_step(networks, params, x, y, drawn, 0),
        "step": lambda: train_step(networks, params, x, y, drawn, 1),
    }


def saved_bytes(run: Callable[[], object]) -> int:
    """Return the bytes that autograd keeps during `run`, each storage once, without parameters."""
    seen: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        if not isinstance(value, Parameter) and not isinstance(value._base, Parameter):
            seen[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        run()
    return sum(value.untyped_storage().nbytes() for value in seen.values())


class Operators(TorchDispatchMode):
    """Count the operators that compute something: all except views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        returned = [value.alias_info for value in func._schema.returns]
        self.count += not any(alias and not alias.is_write for alias in returned)
        return func(*args, **kwargs or {})


# ------------------------------------------------------------------------------------ workers
def gradient_bytes(networks: Networks) -> dict[str, int]:
    """Return the bytes to exchange: of the discriminator, and of generator and mapping network."""
    return {
        "D": sum(4 * p.numel() for p in networks.discriminator.parameters()),
        "G": sum(4 * p.numel() for p in networks.decomposer.generator.parameters()),
        "M": sum(4 * p.numel() for p in networks.decomposer.mapping.parameters()),
    }


def exchange(link: Link, sizes: dict[str, int], workers: int) -> float:
    """Return the seconds of both messages of a step (D's, then G's with M's), without overlap."""
    return sum(link.all_reduce(size, workers) for size in (sizes["D"], sizes["G"] + sizes["M"]))


def bandwidth(case: Case) -> None:
    """Print the cost of exchanging all gradients, and the resulting efficiency of GPUs."""
    networks, batch_size = case.networks(), case.params.batch_size
    sizes = gradient_bytes(networks)
    total = sum(sizes.values())
    title = f"{case.profile} {case.size} px"
    each = ", ".join(f"{name} {size / MIB:.2f}" for name, size in sizes.items())
    print(f"{title}: gradients {total / MIB:.2f} MiB ({each})")
    few = min(batch_size, 2)
    jobs = parts(dataclasses.replace(case, batch=few))
    work, started = {}, {}
    for name in ("step with R1", "step", "optimisers"):
        with Convolutions() as seen, Operators() as all_seen:
            jobs[name]()
        work[name], started[name] = seen.operations * batch_size / few, all_seen.count
    rare = case.params.r1_every
    flops, launches = (
        (count["step with R1"] + (rare - 1) * count["step"]) / rare for count in (work, started)
    )
    launches -= started["optimisers"]  # on a GPU these are a few fused ones
    gpu = max(flops / GPU_FLOPS, launches * GPU_LAUNCH)
    print(
        f"{title}: a step of {batch_size} images is {flops / 1e9:.0f} GFLOP and {launches:.0f} "
        f"operators: {1e3 * flops / GPU_FLOPS:.1f} or {1e3 * launches * GPU_LAUNCH:.1f} ms of an "
        "assumed GPU, whichever is longer"
    )
    for link in LINKS:
        for workers in WORKERS:
            spent = exchange(link, sizes, workers)
            print(
                f"{title}: {link.name:<8} {workers:3d} workers: all-reduce {1e3 * spent:8.2f} ms; "
                f"efficiency of GPUs, same batch each {gpu / (gpu + spent):.2f}",
                flush=True,
            )


def strong(case: Case, rounds: int) -> None:
    """Print step times by images per worker, and the resulting efficiency of CPU workers."""
    whole = case.params.batch_size
    rare = case.params.r1_every
    counts = [whole >> k for k in range(int(math.log2(whole)) + 1)]
    jobs: dict[str, Callable[[], object]] = {}
    for count in counts:
        run = parts(dataclasses.replace(case, batch=count))
        jobs[str(count)] = functools.partial(
            lambda r: [r["step with R1"](), *(r["step"]() for _ in range(rare - 1))], run
        )
    measured = in_turns(jobs, rounds, time.process_time)
    seconds = {int(name): value / rare for name, value in measured.items()}
    title = f"{case.profile} {case.size} px, one CPU core a worker"
    for count, value in seconds.items():
        print(f"{title}: {count} images {1e3 * value:.1f} ms")
    sizes = gradient_bytes(case.networks())
    for link in LINKS[:2]:
        for workers in WORKERS:
            spent = exchange(link, sizes, workers)
            line = f"same batch each {seconds[whole] / (seconds[whole] + spent):.3f}"
            if workers in seconds:
                share = seconds[whole // workers] + spent
                line += f"; one batch shared {seconds[whole] / workers / share:.2f}"
            print(f"{title}: {link.name:<8} {workers:3d} workers: efficiency {line}")


if __name__ == "__main__":
    main()
