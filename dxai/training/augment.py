"""Random changes of training images, keyed by step and position in the global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from dxai.utils import keyed_random


def flip(images: Tensor, seed: int, step: int, samples: range | None = None) -> Tensor:
    """Mirror each image (B, C, H, W) with probability one half.

    Here and below, `samples` are positions in the global batch; default: all of it.
    """
    mirrored = keyed_random.uniform(seed, "flip", step, samples or range(len(images))) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def add_noise(
    images: Tensor, strength: float, seed: int, step: int, samples: range | None = None
) -> Tensor:
    """Add white Gaussian noise of deviation uniform in [0, strength] to each image (B, C, H, W).

    Nothing is clipped, so a clean and a noisy image differ by the noise alone.
    """
    if strength == 0:
        return images
    samples = samples or range(len(images))
    deviation = strength * keyed_random.uniform(seed, "noise strength", step, samples)
    noise = keyed_random.normal(seed, "noise", step, samples, tuple(images.shape[1:]))
    return images + deviation[:, None, None, None] * noise


def lower_contrast(
    images: Tensor, strength: float, seed: int, step: int, samples: range | None = None
) -> Tensor:
    """Multiply each image (B, C, H, W) by a factor uniform in [1 - strength, 1]."""
    if strength == 0:
        return images
    drawn = keyed_random.uniform(seed, "contrast", step, samples or range(len(images)))
    return images * (1 - strength * drawn)[:, None, None, None]
