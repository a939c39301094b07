"""Train the classifier that will be explained."""

from __future__ import annotations

import copy
import math
import time
from contextlib import closing
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai import draws
from dxai.datasets.shards import ShardedDataset
from dxai.models.blocks import channels_last
from dxai.params import ClassifierParams
from dxai.progress import Progress
from dxai.training import sampling
from dxai.training.state import Checkpoint, StopRequest, best_device


def train_classifier(
    network: nn.Module,
    params: ClassifierParams,
    data: ShardedDataset,
    validation: ShardedDataset,
    seed: int,
    checkpoint: Checkpoint,
    title: str,
) -> list[dict[str, Any]]:
    """Train `network` in place and leave it with the weights that were best on validation images.

    Cross-entropy, AdamW, a cosine from `lr` to 0 over all epochs, and early stopping.

    Parameters
    ----------
    network : nn.Module
        Initialised by the caller.
    params : ClassifierParams
        Settings.
    data, validation : ShardedDataset
        Images to train on, and images to select the epoch with; test images have no part in it.
    seed : int
        Keys the order of the images and the flips.
    checkpoint : Checkpoint
        Of this very training; written after each epoch.
    title : str
        For the progress lines.

    Returns
    -------
    list of dict
        One row an epoch: `epoch`, `train_loss`, `train_accuracy`, `validation_loss`,
        `validation_accuracy`, `seconds`.
    """
    channels_last(network).to(best_device())
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=params.lr, weight_decay=params.weight_decay
    )
    steps = max(1, len(data) // params.batch_size)
    total = steps * params.epochs
    history: list[dict[str, Any]] = []
    best = copy.deepcopy(network.state_dict())
    state = checkpoint.load()
    if state is not None:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        best, history = state["best"], state["history"]
        print(f"continuing after epoch {len(history)}", flush=True)
    order = sampling.Order.over(data, seed, min(params.batch_size, len(data)))
    progress = Progress(title, total, len(history) * steps)
    left = range(len(history) * steps, total)
    with StopRequest() as stop, closing(sampling.ahead(data, order, left)) as batches:
        while len(history) < params.epochs and not _patience_is_out(history, params.patience):
            epoch, began = len(history), time.monotonic()
            network.train()
            seen: list[Tensor] = []
            for step in range(epoch * steps, (epoch + 1) * steps):
                for group in optimiser.param_groups:
                    group["lr"] = params.lr * 0.5 * (1 + math.cos(math.pi * step / total))
                batch = next(batches)
                x = sampling.flip(batch.images, seed, step) if params.flip else batch.images
                x = sampling.lower_contrast(x, params.contrast, seed, step)
                x = sampling.add_noise(x, params.noise, seed, step)
                seen.append(_step(network, optimiser, x, batch.labels))
                progress.update(step + 1, _note(history))
                stop.answer()
            network.eval()
            loss, accuracy = score(network, validation)
            train_loss, train_accuracy = torch.stack(seen).mean(0).tolist()
            history.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": train_loss,
                    "train_accuracy": train_accuracy,
                    "validation_loss": loss,
                    "validation_accuracy": accuracy,
                    "seconds": time.monotonic() - began,
                }
            )
            if best_epoch(history) == epoch + 1:
                best = copy.deepcopy(network.state_dict())
            checkpoint.save(
                {
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "best": best,
                    "history": history,
                }
            )
    network.load_state_dict(best)
    network.cpu().eval()
    return history


def best_epoch(history: list[dict[str, Any]]) -> int:
    """The epoch (from 1) of the best validation accuracy; of equals, that of the least loss."""
    best = max(history, key=lambda row: (row["validation_accuracy"], -row["validation_loss"]))
    return int(best["epoch"])


@torch.no_grad()
def score(network: nn.Module, data: ShardedDataset, batch_size: int = 64) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of `network` on all images of a split."""
    loss = correct = 0.0
    device = next(network.parameters()).device
    for batch in data.batches(batch_size):
        logits = network(batch.images.to(device)).cpu()
        loss += float(F.cross_entropy(logits, batch.labels, reduction="sum"))
        correct += float((logits.argmax(1) == batch.labels).sum())
    return loss / len(data), correct / len(data)


def initial_seed(seed: int) -> int:
    """The torch seed for a classifier's first weights."""
    return draws.torch_seed(seed, "classifier/initial weights")


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    device = next(network.parameters()).device
    x, y = x.to(device), y.to(device)
    logits = network(x)
    loss = F.cross_entropy(logits, y)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return torch.stack([loss.detach(), (logits.argmax(1) == y).float().mean()])


def _patience_is_out(history: list[dict[str, Any]], patience: int) -> bool:
    return bool(history) and len(history) - best_epoch(history) >= patience


def _note(history: list[dict[str, Any]]) -> str:
    return f"validation accuracy {history[-1]['validation_accuracy']:.3f}" if history else ""
