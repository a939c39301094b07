"""A classifier averaged over white noise; faint patterns that must be met exactly do not move it.

It is the classifier of randomised smoothing (Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918)
with soft answers.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from dxai.models.devices import device_of, exact_float32
from dxai.types import Batch
from dxai.utils import keyed_random

BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Levels of the guard `auc_smooth`; fewer than Table 1's, since each costs several draws."""
DEVIATIONS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Standard deviations that are tried; images span [-1, 1]."""
KEPT = 0.95
"""Share of its accuracy that a classifier keeps under noise that it stands."""
IMAGES, DRAWS = 256, 2
"""Most images, and noises for each, of the search."""


def noise(images: Tensor, index: Tensor, seed: int, draw: int) -> Tensor:
    """N(0, 1) keyed by each image's index (B,) in its split: (B, C, H, W)."""
    size = tuple(images.shape[1:])
    drawn = keyed_random.normal(seed, "smooth noise", draw, index.tolist(), size)
    return drawn.to(images.device)


@torch.no_grad()
def tolerated(classifier: nn.Module, batches: Callable[[], Iterable[Batch]], seed: int) -> float:
    """Return the largest of `DEVIATIONS` under which the classifier keeps `KEPT` of its accuracy.

    It is found by bisection: more noise does not make a classifier better.

    Parameters
    ----------
    classifier : nn.Module
        Images (B, C, H, W) to logits (B, c).
    batches : callable
        Returns batches of images that nothing else is scored on (validation images). It is called
        without noise and for each of about four deviations, so that no image stays in memory.
    seed : int
        Key of the noise.

    Returns
    -------
    float
        0 if it does not even stand the smallest.
    """
    device = device_of(classifier)

    def right(images: Tensor, batch: Batch) -> int:
        with exact_float32():
            return int((classifier(images.to(device)).argmax(1).cpu() == batch.labels).sum())

    def fails(deviation: float) -> bool:
        found = [
            right(b.images + deviation * noise(b.images, b.index, seed, draw), b)
            for b in batches()
            for draw in range(DRAWS)
        ]
        return sum(found) < least

    least = KEPT * DRAWS * sum(right(b.images, b) for b in batches())
    first = bisect.bisect_left(DEVIATIONS, True, key=fails)
    return DEVIATIONS[first - 1] if first else 0.0
