"""Measure the decomposition of a profile on a GPU: speed, memory and utilisation by precision.

Run as `python -m benchmarks.gpu DATASET`; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dxai.config.params_file import load_params
from dxai.config.profiles import select_profile
from dxai.config.schema import DecomposeParams
from dxai.datasets.prepare import prepare
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.training import batch_order
from dxai.training.decomposition import DecompositionJob
from dxai.training.step import draw_inputs, train_step

PRECISIONS = {"float32": ("float32", False), "tf32": ("float32", True), "bf16": ("bf16", True)}
"""`decompose.precision`, and whether float32 products may be rounded to TF32."""
PEAKS = {"H100": (67, 495, 989), "H200": (67, 495, 989), "A100": (19.5, 156, 312)}
"""Dense TFLOP/s by precision, from the data sheets (SXM)."""


def main() -> None:
    """Print a row for each precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="a dataset of the catalogue")
    parser.add_argument("--source", type=Path, help="its images (default: its source)")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--size", type=int, default=64, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, help="images per step (default: the profile's)")
    parser.add_argument("--steps", type=int, default=100, help="steps to time for each precision")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    overrides = {"prepare.image_size": str(args.size)}
    if args.batch:
        overrides["decompose.batch_size"] = str(args.batch)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy = folder / "params.yaml"
        copy.write_text(Path("params.yaml").read_text())
        select_profile(copy, args.profile, [args.dataset], overrides=overrides)
        params = load_params(copy)
        if args.source:
            dataset = params.dataset(args.dataset)
            dataset = dataset.replace(source=str(args.source.absolute()))
            params = params.replace(datasets={args.dataset: dataset})
        prepare(args.dataset, params, folder / "data", folder / "unfinished")
        # With C = D no classifier has to be trained first.
        settings = params.decompose_for(args.dataset, next(iter(params.classifiers)))
        settings = settings.replace(discriminator_heads="class")
        print(f"{card}, {args.size} px, batch {settings.batch_size}, profile {args.profile}")
        for name in PRECISIONS:
            measure(name, settings, folder / "data", device, card, args.steps)


def measure(
    name: str, settings: DecomposeParams, data: Path, device: torch.device, card: str, steps: int
) -> None:
    """Train some steps and print the measurements."""
    precision, tf32 = PRECISIONS[name]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    settings = settings.replace(precision=precision)
    train = ShardedDataset(data, "train")
    networks = DecompositionJob(str(data), settings, None, 0).networks(train, device)
    order = batch_order.Order.over(train, 0, settings.batch_size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    warm_up = max(3, steps // 10)
    seconds, flops, losses = [], 0, {}
    batches = batch_order.prefetch(train, order, range(warm_up + steps))
    for step, batch in enumerate(batches):
        wait(device)
        began = time.perf_counter()
        drawn = draw_inputs(settings, 0, step, batch.labels, len(train.class_names)).to(device)
        x, y = batch.images.to(device), batch.labels.to(device)
        if step == 0:
            with Flops() as counter:
                losses = train_step(networks, settings, x, y, drawn, step)
            flops = counter.total
        else:
            losses = train_step(networks, settings, x, y, drawn, step)
        wait(device)
        if step >= warm_up:
            seconds.append(time.perf_counter() - began)
    each = statistics.median(seconds)
    row = f"{name:8} {1 / each:8.2f} steps/s  {settings.batch_size / each:8.1f} images/s"
    if device.type == "cuda":
        row += f"  {torch.cuda.max_memory_allocated() / 2**30:6.2f} GiB"
    known = [peaks for part, peaks in PEAKS.items() if part in card]
    row += f"  {flops / each / 1e12:7.3f} TFLOP/s"
    if known:
        share = flops / each / 1e12 / known[0][list(PRECISIONS).index(name)]
        row += f" ({share:.1%} of the card's)"
    print(row + f"  loss {float(losses['total']):.3f}", flush=True)


class Flops(TorchDispatchMode):
    """Count floating-point operations; torch's own counter fails on R1's inner gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
