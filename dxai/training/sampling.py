"""Which images a step sees: a function of seed and step alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dxai import draws


class Order:
    """An endless stream of shuffled passes over n images, cut into batches.

    Parameters
    ----------
    seed : int
        Decides the order.
    n, batch_size : int
        Images in the split and in a batch.
    """

    def __init__(self, seed: int, n: int, batch_size: int) -> None:
        self.seed, self.n, self.batch_size = seed, n, batch_size
        self._passes: dict[int, np.ndarray] = {}

    def indices(self, step: int) -> np.ndarray:
        """Places in the split of the images of `step`, (batch_size,)."""
        places = step * self.batch_size + np.arange(self.batch_size)
        return np.array([self._pass(int(p) // self.n)[int(p) % self.n] for p in places])

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1}
            self._passes[number] = draws.permutation(self.seed, "order", number, self.n)
        return self._passes[number]


def flip(images: Tensor, seed: int, step: int) -> Tensor:
    """Mirror each image (B, C, H, W) with probability one half."""
    mirrored = draws.uniform(seed, "flip", step, range(len(images))) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def add_noise(images: Tensor, strength: float, seed: int, step: int) -> Tensor:
    """Add white Gaussian noise to each image (B, C, H, W), its deviation uniform in [0, strength].

    Not clipped, so that a clean and a noisy image differ by the noise alone.
    """
    if strength == 0:
        return images
    samples = range(len(images))
    deviation = strength * draws.uniform(seed, "noise strength", step, samples)
    noise = draws.normal(seed, "noise", step, samples, tuple(images.shape[1:]))
    return images + deviation[:, None, None, None] * noise


def lower_contrast(images: Tensor, strength: float, seed: int, step: int) -> Tensor:
    """Multiply each image (B, C, H, W) by a factor uniform in [1 - strength, 1]."""
    if strength == 0:
        return images
    drawn = draws.uniform(seed, "contrast", step, range(len(images)))
    return images * (1 - strength * drawn)[:, None, None, None]
