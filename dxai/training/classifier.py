"""Train the classifier to be explained."""

from __future__ import annotations

import copy
import math
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.config.schema import ClassifierParams, ClassifierSpec
from dxai.models.blocks import channels_last
from dxai.models.classifiers import build_classifier
from dxai.models.devices import device_of
from dxai.models.network_output import pick
from dxai.models.renewal import brought, renew
from dxai.models.serialization import adapter_info
from dxai.paths import ROLES
from dxai.training import augment
from dxai.training.batch_order import Order, prefetch
from dxai.training.checkpoints import Checkpoint, all_finite
from dxai.training.distributed import SINGLE_PROCESS, ProcessGroup
from dxai.training.events import RESENT, EventSink, Stopped
from dxai.training.run import TrainingRun
from dxai.types import Batch, Images
from dxai.utils import keyed_random


def train_classifier(
    network: nn.Module, params: ClassifierParams, run: TrainingRun
) -> list[dict[str, Any]]:
    """Train `network` in place, keeping the weights that were best on validation images.

    Uses cross-entropy, AdamW, a cosine schedule from `lr` to 0 over all epochs, and early stopping.
    A checkpoint is written after each epoch and when stopped.

    Returns
    -------
    list of dict
        One row per epoch: `epoch`, `train_loss`, `train_accuracy`, `validation_loss`,
        `validation_accuracy`, `seconds` since the start.

    Raises
    ------
    NonFiniteError
        With step and image ids.
    Stopped
        If the event sink requested it; everything up to that step is saved.
    """
    data, seed, events, group = run.data, run.seed, run.events, run.group
    group.synchronise_batch_norm(network)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=params.lr, weight_decay=params.weight_decay
    )
    batch_size = params.batch_size
    if len(data) < batch_size:
        batch_size = len(data) // group.size * group.size
    share = group.share(batch_size)
    steps = len(data) // batch_size
    total = steps * params.epochs
    best, history, seen, done, spent = copy.deepcopy(network.state_dict()), [], [], 0, 0.0
    state = run.load()
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        best, history, done = state["best"], state["history"], state["step"]
        seen, spent = state["seen"], state["seconds"]
    for row in history[-RESENT:]:
        events.emit("row", step=row["epoch"] * steps, numbers=row)
    events.emit("start", step=done, total=total, images=batch_size)
    order = Order.over(data, seed, batch_size)
    began = time.monotonic() - spent

    def save(complete: bool) -> None:
        content = {
            "step": done,
            "complete": complete,
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "best": best,
            "history": history,
            "seen": seen,
            "seconds": time.monotonic() - began,
        }
        run.checkpoint.save(content, done, history[-1]["validation_accuracy"] if history else 0.0)

    with closing(prefetch(data, order, range(done, total), share)) as batches:
        while not _is_over(history, params):
            network.train()
            for param_group in optimiser.param_groups:
                param_group["lr"] = params.lr * 0.5 * (1 + math.cos(math.pi * done / total))
            x, y = _augmented(next(batches), params, seed, done, share)
            found = _step(network, optimiser, x, y, group)
            flag = torch.tensor([float(run.is_first and events.stopping)])
            loss, accuracy, stopping = group.mean(torch.cat([found, flag.to(found)])).tolist()
            due = (done + 1) % steps == 0 or stopping
            # Exclude the buffers, which may be infinite on purpose.
            kept = [*network.parameters(), optimiser.state_dict()] if due else []
            if not math.isfinite(loss) or not all_finite(kept):
                what = "weights are" if math.isfinite(loss) else "loss is"
                raise run.non_finite(order, done + 1, f"the {what} not finite")
            seen.append([loss, accuracy])
            done += 1
            events.emit("step", done=done, note=_note(history))
            if done % steps == 0:
                network.eval()
                means = torch.tensor(seen).mean(0).tolist()
                tested = score(network, run.validation, group=group)
                history.append(_row(len(history) + 1, means, tested, time.monotonic() - began))
                seen = []
                if best_epoch(history) == len(history):
                    best = copy.deepcopy(network.state_dict())
                events.emit("row", step=done, numbers=history[-1])
            if run.is_first and due:
                save(_is_over(history, params))
            if stopping:
                raise Stopped(f"stopped after step {done}")
    network.load_state_dict(best)
    network.eval()
    return history


def best_epoch(history: list[dict[str, Any]]) -> int:
    """Return the epoch (from 1) with the best validation accuracy; ties go to the lowest loss."""
    best = max(history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    return int(best["epoch"])


@torch.no_grad()
def score(
    network: nn.Module,
    data: Images,
    batch_size: int = 64,
    group: ProcessGroup = SINGLE_PROCESS,
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy on a split, divided among the workers."""
    sums = torch.zeros(2, dtype=torch.float64)
    device = device_of(network)
    for batch in data.batches(batch_size, range(group.rank, len(data), group.size)):
        logits = network(batch.images.to(device)).cpu()
        sums[0] += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
        sums[1] += float((logits.argmax(1) == batch.labels).sum())
    loss, accuracy = (group.sum(sums.to(device)) / len(data)).tolist()
    return loss, accuracy


def role_seed(seed: int, role: str) -> int:
    """Return the seed of a classifier's training in one of `ROLES`, from that of its settings."""
    return seed + 1000 * ROLES.index(role)


def initial_seed(seed: int) -> int:
    """Return the torch seed of a classifier's initial weights."""
    return keyed_random.torch_seed(seed, "classifier/initial weights")


def _augmented(
    batch: Batch, params: ClassifierParams, seed: int, step: int, share: range
) -> tuple[Tensor, Tensor]:
    x = augment.flip(batch.images, seed, step, share) if params.flip else batch.images
    x = augment.lower_contrast(x, params.contrast, seed, step, share)
    return augment.change(params, x, seed, step, share), batch.labels


def _step(
    network: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor, group: ProcessGroup
) -> Tensor:
    """Update once; return loss and accuracy on this worker's share."""
    device = device_of(network)
    x, y = x.to(device), y.to(device)
    logits = pick(network(x), None)  # in training, some networks return those of further heads too
    loss = F.cross_entropy(logits, y)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    group.average_gradients(network.parameters())
    optimiser.step()
    return torch.stack([loss.detach(), (logits.argmax(1) == y).float().mean().to(loss.dtype)])


def _row(
    epoch: int, trained: list[float], tested: tuple[float, float], seconds: float
) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train_loss": trained[0],
        "train_accuracy": trained[1],
        "validation_loss": tested[0],
        "validation_accuracy": tested[1],
        "seconds": seconds,
    }


def _trainable(network: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in network.parameters())


def _is_over(history: list[dict[str, Any]], params: ClassifierParams) -> bool:
    """Whether all epochs are done, or the last `patience` ones brought no improvement."""
    if len(history) >= params.epochs:
        return True
    return bool(history) and len(history) - best_epoch(history) >= params.patience


def _note(history: list[dict[str, Any]]) -> str:
    return f"validation accuracy {history[-1]['validation_accuracy']:.3f}" if history else ""


class ImagesAndClasses(Protocol):
    """What a network is built for: a `ShardedDataset`, or a description of it."""

    channels: int
    class_names: list[str]
    image_size: int


@dataclass(frozen=True)
class ClassifierJob:
    """The training of a classifier, or of its twin.

    Attributes
    ----------
    twin : bool
        Train all weights, and draw those anew that the network brings.
    """

    data: str
    spec: ClassifierSpec
    settings: ClassifierParams
    seed: int
    twin: bool = False

    @property
    def user_package(self) -> str | None:
        """Return the package of a classifier written as `module:Class`."""
        return self.spec.arch.split(":")[0].split(".")[0] if ":" in self.spec.arch else None

    def network(self, data: ImagesAndClasses) -> tuple[nn.Module, dict[str, Any]]:
        """Build the network, with the spec's weights if any; also returns what rebuilds it."""
        with torch.random.fork_rng(devices=[]):
            network = self._built(data, self.seed)
            if self.twin and (names := self.brought(network, data)):
                renew(network, names)
        if self.twin or (self.spec.train and not _trainable(network)):
            network.requires_grad_()
        return channels_last(network), {
            "arch": self.spec.arch,
            "options": dict(self.spec.options),
            "channels": data.channels,
            "image_size": data.image_size,
            "value_range": [-1.0, 1.0],
            "network_range": list(self.spec.expected_range),
            **adapter_info(self.spec),
        }

    def brought(self, network: nn.Module, data: ImagesAndClasses) -> list[str]:
        """List the parameters that a user's network brings instead of drawing them."""
        if self.user_package is None or self.spec.weights is not None:
            return []
        with torch.random.fork_rng(devices=[]):
            return brought(network, self._built(data, self.seed + 1))

    def _built(self, data: ImagesAndClasses, seed: int) -> nn.Module:
        torch.manual_seed(initial_seed(seed))
        return build_classifier(self.spec, data.channels, data.class_names, data.image_size)

    def run(
        self, device: torch.device, checkpoint: Checkpoint, events: EventSink, group: ProcessGroup
    ) -> None:
        run = TrainingRun.open(self.data, self.seed, checkpoint, events, group)
        train_classifier(self.network(run.data)[0].to(device), self.settings, run)
