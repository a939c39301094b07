"""Train a decomposition, from scratch or from its checkpoint."""

from __future__ import annotations

import io
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dxai.config.schema import DecomposeParams
from dxai.metrics import removal
from dxai.models.serialization import load_classifier
from dxai.training import augment
from dxai.training.batch_order import Order, prefetch
from dxai.training.checkpoints import Checkpoint, all_finite
from dxai.training.distributed import ProcessGroup
from dxai.training.events import RESENT, EventSink, Stopped
from dxai.training.pace import BySteps, Pace
from dxai.training.run import TrainingRun
from dxai.training.step import Networks, build_networks, draw_inputs, train_step
from dxai.types import Batch, Decomposition, Images
from dxai.utils import keyed_random

Snapshots = dict[int, dict[str, Tensor]]
"""Maps a step to the averaged weights after it."""
PANEL_IMAGES = 12
"""Validation images in the sample panels and the logged PSNR."""
EARLIER = (1 / 300_000, 1 / 30, 1 / 3)
"""Fractions of training at which snapshots are kept: those of Table 4 before the last."""
READ_EVERY = 20
"""Steps between two reads of the losses from a GPU; each read waits for it."""


def train(
    networks: Networks, params: DecomposeParams, run: TrainingRun, pace: Pace | None = None
) -> list[dict[str, Any]]:
    """Train `networks`, as built by `build_networks`, in place; resume from a checkpoint if any.

    `pace` says when it ends; default: after `params.steps`.

    Returns
    -------
    list of dict
        The history, a row whenever one is due: `step`, `seconds`, `loss/...`, and `psnr_db` on
        validation images.

    Raises
    ------
    NonFiniteError
        With step, losses and image ids.
    Stopped
        If the event sink requested it; everything up to that step is saved.
    """
    data, seed, events, group = run.data, run.seed, run.events, run.group
    classes = len(data.class_names)
    device = next(networks.decomposer.parameters()).device
    order = Order.over(data, seed, params.batch_size)
    share = group.share(params.batch_size)
    start, history, sums, spent, snapshots = _resume(networks, run.load())
    pace = pace or BySteps(params)
    assert group.size == 1 or pace.steps, "workers with clocks of their own end at different steps"
    kept = snapshot_steps(pace.steps) if pace.steps else []
    for row in history[-RESENT:]:
        events.emit("row", step=row["step"], numbers=row)
    total = pace.total(start, spent)
    events.emit("start", step=start, total=total, images=params.batch_size)
    shown = _panel_batch(run.validation)
    began = time.monotonic() - spent
    unread: list[dict[str, Tensor]] = []
    with closing(prefetch(data, order, pace.ahead(start, spent), share)) as batches:
        for step, batch in enumerate(batches, start):
            images = batch.images
            if params.flip:
                images = augment.flip(images, seed, step, share)
            drawn = draw_inputs(params, seed, step, batch.labels, classes, share).to(device)
            x, y = images.to(device), batch.labels.to(device)
            unread.append(train_step(networks, params, x, y, drawn, step, group))
            done = step + 1
            due = pace.due(done, time.monotonic() - began)
            if done in kept and run.is_first:
                snapshots[done] = _copy(networks.average.state_dict())
            if device.type == "cuda" and len(unread) < READ_EVERY and not any(due):
                continue
            losses, stopping = _read_losses(unread, group, run.is_first and events.stopping)
            _check_losses(run, order, losses, done)
            unread = []
            for row in losses:
                for name, value in row.items():
                    sums.setdefault(name, []).append(value)
            if due.row:
                means = {name: float(torch.stack(v).mean()) for name, v in sums.items()}
                sums = {}
                if run.is_first:
                    seconds = time.monotonic() - began
                    history.append(_row(done, seconds, means, networks, shown, seed))
                    events.emit("row", step=done, numbers=history[-1])
            if due.panel and run.is_first:
                events.emit("panel", step=done, png=panel(_decompose(networks, shown, seed)))
            if due.checkpoint or stopping:
                _check_weights(run, order, networks, done)
            if (due.checkpoint or stopping) and run.is_first:
                # Save unlogged losses too, so that a resumed history is identical.
                content = {
                    "step": done,
                    "complete": due.last,
                    "networks": networks.state_dict(),
                    "history": history,
                    "sums": sums,
                    "snapshots": snapshots,
                    "seconds": time.monotonic() - began,
                }
                run.checkpoint.save(content, done, history[-1]["psnr_db"] if history else 0.0)
            total = done if due.last else pace.total(done, time.monotonic() - began)
            events.emit("step", done=done, total=total, note=_note(history))
            if stopping:
                raise Stopped(f"stopped after step {done}")
            if due.last:
                break
    return history


def _resume(
    networks: Networks, state: dict[str, Any] | None
) -> tuple[int, list[dict[str, Any]], dict[str, list[Tensor]], float, Snapshots]:
    if state is None:
        return 0, [], {}, 0.0, {}
    networks.load_state_dict(state["networks"])
    rest = (state["sums"], state["seconds"], state["snapshots"])
    return state["step"], state["history"], *rest


def snapshot_steps(steps: int) -> list[int]:
    """Return the steps, before the last, after which averaged weights are kept (Table 4).

    They are 1, 10,000 and 100,000 of the paper's 300,000 steps, scaled to this number.
    """
    return sorted({max(1, round(share * steps)) for share in EARLIER} - {steps})


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _read_losses(
    unread: list[dict[str, Tensor]], group: ProcessGroup, stopping: bool
) -> tuple[list[dict[str, Tensor]], bool]:
    """Return the steps' losses, averaged over workers, and whether the first worker must stop."""
    values = [value.double().cpu() for row in unread for value in row.values()]
    flags = torch.tensor([float(stopping)], dtype=torch.float64)
    found = torch.cat([torch.stack(values), flags])
    if group.size > 1:
        device = next(iter(unread[0].values())).device  # NCCL does not accept CPU tensors
        found = group.mean(found.to(device)).cpu()
    means = iter(found)
    # Restore the dtype, so that a single worker's values are unchanged.
    rows = [{name: next(means).to(value.dtype) for name, value in r.items()} for r in unread]
    return rows, bool(next(means) > 0)


def _check_losses(
    run: TrainingRun, order: Order, losses: list[dict[str, Tensor]], done: int
) -> None:
    for number, row in enumerate(losses, done - len(losses) + 1):
        wrong = [name for name, value in row.items() if not bool(value.isfinite())]
        if wrong:
            raise run.non_finite(order, number, f"loss {', '.join(wrong)} is not finite")


def _check_weights(run: TrainingRun, order: Order, networks: Networks, done: int) -> None:
    """Check before saving: an update may overflow although all earlier losses were finite."""
    wrong = [name for name, state in networks.state_dict().items() if not all_finite(state)]
    if wrong:
        raise run.non_finite(order, done, f"{', '.join(wrong)} not finite after it")


def _panel_batch(data: Images) -> Batch:
    """Return the first few images of each class."""
    per_class = max(1, PANEL_IMAGES // len(data.class_names))
    indices = [
        int(i)
        for c in range(len(data.class_names))
        for i in (data.labels == c).nonzero()[0][:per_class]
    ]
    return data.batch(indices)


@torch.no_grad()
def _decompose(networks: Networks, batch: Batch, seed: int) -> Decomposition:
    size, device = (networks.average.latent_dim,), next(networks.average.parameters()).device
    latent = keyed_random.normal(seed, "panel latent", 0, batch.index.tolist(), size)
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
    error = _decompose(networks, shown, seed).error
    psnr = float(removal.psnr(error).mean())
    losses = {f"loss/{name}": value for name, value in means.items()}
    return {"step": step, "seconds": seconds, "psnr_db": psnr} | losses


def _note(history: list[dict[str, Any]]) -> str:
    if not history:
        return "no losses yet"
    last = history[-1]
    return (
        f"class {last['loss/class']:.2f}, rec {last['loss/rec']:.3f}, "
        f"x_hat {last['psnr_db']:.1f} dB"
    )


def panel(decomposition: Decomposition, enlarge: int = 2) -> bytes:
    """Render a PNG with one row per image: x, class-agnostic, class-distinct, x_hat; in [-1, 1]."""
    parts = (
        decomposition.image,
        decomposition.agnostic,
        decomposition.distinct,
        decomposition.reconstruction,
    )
    rows = torch.cat([part.clamp(-1, 1) for part in parts], dim=3)
    sheet = rows.permute(0, 2, 3, 1).flatten(0, 1)
    pixels = ((sheet + 1) * 127.5).round().to(torch.uint8).numpy()
    image = Image.fromarray(
        np.ascontiguousarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    )
    size = (image.width * enlarge, image.height * enlarge)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class DecompositionJob:
    """Training of a decomposition of the model file `classifier`; None means C = D."""

    data: str
    settings: DecomposeParams
    classifier: bytes | None
    seed: int
    modules: tuple[str, ...] = ()
    """Import path of the classifier, if it is the user's."""

    @property
    def user_package(self) -> str | None:
        """Return the package of a classifier written as `module:Class`."""
        return next(
            (arch.split(":")[0].split(".")[0] for arch in self.modules if ":" in arch), None
        )

    def networks(self, data: Images, device: torch.device | str = "cpu") -> Networks:
        """Build the untrained networks."""
        frozen = None
        if self.classifier is not None:
            frozen, _ = load_classifier(io.BytesIO(self.classifier), self.modules)
        shape = (data.channels, len(data.class_names), data.image_size)
        return build_networks(self.settings, *shape, frozen, self.seed, device)

    def run(
        self, device: torch.device, checkpoint: Checkpoint, events: EventSink, group: ProcessGroup
    ) -> None:
        run = TrainingRun.open(self.data, self.seed, checkpoint, events, group)
        train(self.networks(run.data, device), self.settings, run)
