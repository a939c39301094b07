"""A leakage probe: what a fresh network can still read of the class from class-agnostic images.

Shapes: N images of C channels and H x W pixels, c classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.metrics.scorer import chosen_images
from dxai.models.blocks import default_format
from dxai.models.classifiers import ResNet18
from dxai.models.devices import device_of, exact_float32
from dxai.training import augment
from dxai.training.batch_order import Order
from dxai.utils import keyed_random

WIDTH = 8
"""Channels of the first stage of the probe, a ResNet-18."""
BATCH_SIZE, LR, WEIGHT_DECAY = 16, 2e-3, 1e-4
TESTED_AT_ONCE = 64


def train_probe(
    images: Tensor,
    labels: Tensor,
    classes: int,
    epochs: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Train a ResNet-18 from new weights to tell the class of images.

    By cross-entropy and AdamW, whose learning rate falls to 0 along a cosine; images are mirrored
    at random. The weights are those of the last step, so that nothing is chosen on other images.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W), float32 of any range.
    labels : Tensor
        (N,), int64 in [0, classes).
    epochs : int
        Passes over the images, each shuffled anew.
    seed : int
        Keys initial weights, order and mirroring: equal arguments give an equal network.
    device : torch.device or str
        Of the network; images and labels stay where they are, and its batches are moved.

    Returns
    -------
    nn.Module
        In eval mode; images to logits (N, classes).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_random.torch_seed(seed, "probe weights"))
        network = ResNet18(images.shape[1], classes, images.shape[2], WIDTH)
    default_format(network).to(device)  # `channels_last` refuses one as narrow as this
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    size = min(BATCH_SIZE, len(images))
    steps = epochs * len(images) // size
    order = Order(seed, len(images), size)
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LR * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.from_numpy(order.indices(step))
        seen = augment.flip(images[chosen], seed, step).to(device)
        with exact_float32():
            loss = F.cross_entropy(network(seen), labels[chosen].to(device))
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
    return network.eval()


@torch.no_grad()
def predict(network: nn.Module, images: Tensor) -> np.ndarray:
    """Return the class of each image, (N,), int64."""
    device = device_of(network)
    with exact_float32():
        found = [network(part.to(device)).argmax(1).cpu() for part in images.split(TESTED_AT_ONCE)]
    return torch.cat(found).numpy()


def spread_over_classes(labels: np.ndarray, images: int) -> np.ndarray:
    """Indices of about `images` of (N,) labels, spread evenly over each class, in order.

    Every class has as many as any other, or all that it has.
    """
    classes = np.unique(labels)
    chosen = []
    for label in classes:
        own = np.flatnonzero(labels == label)
        count = min(len(own), max(1, images // len(classes)))
        chosen.append(own[chosen_images(len(own), count)])
    return np.sort(np.concatenate(chosen))
