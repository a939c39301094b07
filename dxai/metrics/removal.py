"""Remove the class-distinct part from an image, fully or gradually (Eq. 9 and the guards).

Levels are yielded one by one: all of them at once would take eleven times the memory.
Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dxai.utils import keyed_random

ENERGIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Removed energy ||gamma psi||^2 / ||x||^2 of the guard `auc_energy`."""
DELETED = (0.0, 0.05, 0.1, 0.15, 0.2)
"""Shares of an image's pixels to delete (Table 2)."""
UNDECIDED = 0.9
"""Share of the greatest entropy, log c, from which a classifier counts as undecided (Def. 1)."""


def distinct_from_heatmap(heatmap: Tensor, images: Tensor, sign: str) -> Tensor:
    """psi_distinct = w x with w = H / max|H| per image (Section 4 of the paper).

    Parameters
    ----------
    heatmap : Tensor
        (B, 1 or C, H, W).
    images : Tensor
        (B, C, H, W) in [-1, 1].
    sign : {'signed', 'relu'}
        Keep the heatmap's sign, or set negative values to 0 first (the paper's H >= 0).

    Returns
    -------
    Tensor
        (B, C, H, W); 0 where a heatmap is 0 everywhere.
    """
    heatmap = with_sign(heatmap, sign)
    peak = heatmap.abs().amax((1, 2, 3), keepdim=True)
    return heatmap / torch.where(peak > 0, peak, torch.ones_like(peak)) * images


def with_sign(heatmap: Tensor, sign: str) -> Tensor:
    """Return the map unchanged ("signed") or clamped at 0 ("relu", the paper's H >= 0)."""
    if sign not in ("signed", "relu"):
        raise ValueError(f"unknown sign {sign!r}; valid are signed, relu")
    return heatmap.clamp(min=0) if sign == "relu" else heatmap


def remove(images: Tensor, distinct: Tensor, betas: Sequence[float]) -> Iterator[Tensor]:
    """Yield x_beta = x - beta psi_distinct for every beta (Eq. 9), shaped like x, not clipped."""
    for beta in betas:
        yield images - beta * distinct


def remove_energy(images: Tensor, distinct: Tensor, energies: Sequence[float]) -> Iterator[Tensor]:
    """Yield x - gamma psi with gamma >= 0 such that ||gamma psi||^2 / ||x||^2 is each energy.

    Every method thus changes an image by the same amount: (B, C, H, W). Zeros remove nothing.
    """
    ratio = _energy(images) / _energy(distinct).clamp(min=1e-12)
    for energy in energies:
        yield images - (energy * ratio).sqrt()[:, None, None, None] * distinct


def delete(
    images: Tensor, heat: Tensor, shares: Sequence[float], fill: float, index: Tensor, seed: int
) -> Iterator[Tensor]:
    """Yield (B, C, H, W) without the pixels that a map ranks highest (Table 2), for every share.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W).
    heat : Tensor
        (B, 1 or C, H, W), a heatmap (not w x) or psi_distinct; pixels are ranked by its mean
        absolute value over channels.
    shares : sequence of float
        Shares of the pixels, each rounded to a whole number of them.
    fill : float
        Replaces the values of deleted pixels in all channels.
    index : Tensor
        (B,), the index of each image in its split; with `seed` it breaks ties.
    seed : int
        The run's seed.
    """
    ranks = heat.abs().mean(1).flatten(1).double().cpu().numpy()
    pixels = ranks.shape[1]
    rows = []
    for values, i in zip(ranks, index.tolist(), strict=True):
        ties = keyed_random.generator(seed, "deletion ties", 0, i).permutation(pixels)
        order = np.empty(pixels, dtype=np.int64)
        order[np.lexsort((ties, -values))] = np.arange(pixels)
        rows.append(order.reshape(heat.shape[2:]))
    rank = torch.from_numpy(np.stack(rows))[:, None].to(images.device)
    for share in shares:
        yield torch.where(rank < round(share * pixels), fill, images)


def blur(distinct: Tensor) -> Tensor:
    """Average 3x3 pixels, with a replicated border; destroys adversarial patterns."""
    return F.avg_pool2d(F.pad(distinct, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def psnr(difference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB (peak 2) of each image's difference from its original: (B,).

    At most 120 dB, so that a difference of 0 has a finite value.
    """
    return 10 * torch.log10(4 / difference.square().mean((1, 2, 3)).clamp(min=4e-12))


def neutrality(probabilities: Tensor) -> Tensor:
    """Entropy of the answers (B, c) over log c: 1 where the classifier is undecided (Def. 1)."""
    return torch.special.entr(probabilities).sum(1) / math.log(probabilities.shape[1])


def _energy(images: Tensor) -> Tensor:
    return images.square().sum((1, 2, 3))
