"""Train a decomposition from the first step, or from its checkpoint, to the last."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from dxai import draws
from dxai.datasets.shards import ShardedDataset
from dxai.params import DecomposeParams
from dxai.progress import Progress
from dxai.training import sampling
from dxai.training.state import Checkpoint, StopRequest
from dxai.training.step import Networks, draw, train_step
from dxai.types import Batch, Decomposition

PANEL_IMAGES = 12
"""Validation images behind the sample panels and the logged PSNR."""


class NonFiniteLoss(ValueError):
    """A loss became NaN or infinite; the checkpoint before it stays."""


def train(
    networks: Networks,
    params: DecomposeParams,
    data: ShardedDataset,
    validation: ShardedDataset,
    seed: int,
    checkpoint: Checkpoint,
    title: str,
    on_panel: Callable[[int, Decomposition], None],
) -> list[dict[str, Any]]:
    """Train `networks` in place.

    Parameters
    ----------
    networks : Networks
        As built by `build_networks`; continued from `checkpoint` where there is one.
    params : DecomposeParams
        Settings.
    data, validation : ShardedDataset
        Images to train on, and images for panels and PSNR.
    seed : int
        Keys every draw.
    checkpoint : Checkpoint
        Of this very training.
    title : str
        For the progress lines.
    on_panel : callable
        Is given the step and the decomposition of some validation images by the averaged weights.

    Returns
    -------
    list of dict
        The losses every `log_every` steps: `step`, `seconds`, `loss/...` and `psnr_db` on
        validation images.

    Raises
    ------
    NonFiniteLoss
        Naming step, losses and image ids.
    """
    classes = len(data.class_names)
    device = next(networks.decomposer.parameters()).device
    start, history, sums, spent = _resume(networks, checkpoint)
    order = sampling.Order.over(data, seed, params.batch_size)
    shown = _panel_batch(validation)
    progress = Progress(title, params.steps, start)
    began = time.monotonic() - spent
    steps = range(start, params.steps)
    with StopRequest() as stop, closing(sampling.ahead(data, order, steps)) as batches:
        for step, batch in zip(steps, batches, strict=True):
            x = sampling.flip(batch.images, seed, step) if params.flip else batch.images
            drawn = draw(params, seed, step, batch.labels, classes).to(device)
            x, y = x.to(device), batch.labels.to(device)
            terms = train_step(networks, params, x, y, drawn, step)
            _check_finite(terms, step, batch)
            for name, value in terms.items():
                sums.setdefault(name, []).append(value)
            done = step + 1
            if done % params.log_every == 0 or done == params.steps:
                means = {name: float(torch.stack(v).mean()) for name, v in sums.items()}
                sums = {}
                history.append(_row(done, time.monotonic() - began, means, networks, shown, seed))
            if done % params.panel_every == 0 or done == params.steps:
                on_panel(done, _decompose(networks, shown, seed))
            stopping = stop.pending is not None
            if done % params.checkpoint_every == 0 or stopping:
                # Losses since the last row are kept too, so that a resumed history is the same.
                checkpoint.save(
                    {
                        "step": done,
                        "networks": networks.state_dict(),
                        "history": history,
                        "sums": sums,
                        "seconds": time.monotonic() - began,
                    }
                )
            progress.update(done, _note(history))
            if stopping:  # asked for after the checkpoint: the next step saves, then answers
                stop.answer()
    return history


def _resume(
    networks: Networks, checkpoint: Checkpoint
) -> tuple[int, list[dict[str, Any]], dict[str, list[Tensor]], float]:
    state = checkpoint.load()
    if state is None:
        return 0, [], {}, 0.0
    networks.load_state_dict(state["networks"])
    print(f"continuing from the checkpoint of step {state['step']}", flush=True)
    return state["step"], state["history"], state["sums"], state["seconds"]


def _check_finite(terms: dict[str, Tensor], step: int, batch: Batch) -> None:
    values = torch.stack([value.double() for value in terms.values()])
    if bool(torch.isfinite(values).all()):
        return
    wrong = [name for name, value in zip(terms, values, strict=True) if not value.isfinite()]
    raise NonFiniteLoss(
        f"step {step + 1}: loss {', '.join(wrong)} is not finite; images {', '.join(batch.ids)}; "
        "the last checkpoint is kept"
    )


def _panel_batch(data: ShardedDataset) -> Batch:
    """Some images of every class in turn."""
    per_class = max(1, PANEL_IMAGES // len(data.class_names))
    places = [
        int(i)
        for c in range(len(data.class_names))
        for i in (data.labels == c).nonzero()[0][:per_class]
    ]
    return data.batch(places)


@torch.no_grad()
def _decompose(networks: Networks, batch: Batch, seed: int) -> Decomposition:
    size, device = (networks.average.latent_dim,), next(networks.average.parameters()).device
    latent = draws.normal(seed, "panel latent", 0, batch.index.tolist(), size)
    found = networks.average(batch.images.to(device), batch.labels.to(device), latent.to(device))
    return Decomposition(batch.images, found.psi.cpu())


def _row(
    step: int,
    seconds: float,
    means: dict[str, float],
    networks: Networks,
    shown: Batch,
    seed: int,
) -> dict[str, Any]:
    residual = _decompose(networks, shown, seed).residual
    # Peak 2: images span [-1, 1].
    psnr = float((10 * torch.log10(4 / residual.square().mean((1, 2, 3)))).mean())
    losses = {f"loss/{name}": value for name, value in means.items()}
    return {"step": step, "seconds": seconds, "psnr_db": psnr} | losses


def _note(history: list[dict[str, Any]]) -> str:
    if not history:
        return ""
    last = history[-1]
    return (
        f"class {last['loss/class']:.2f}, rec {last['loss/rec']:.3f}, "
        f"x_hat {last['psnr_db']:.1f} dB"
    )
