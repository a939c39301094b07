"""Taking the class-distinct part out of an image, fully or by degrees (Eq. 9 and the guards).

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dxai.utils import keyed_random

ENERGIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Removed energy ||gamma psi||^2 / ||x||^2 of the guard `auc_energy`."""
DELETED = (0.0, 0.05, 0.1, 0.15, 0.2)
"""Shares of an image's pixels that are deleted (Table 2)."""


def part_from_heatmap(heatmap: Tensor, images: Tensor, sign: str) -> Tensor:
    """psi_distinct = w x with w = H / max|H| per image (Section 4 of the paper).

    Parameters
    ----------
    heatmap : Tensor
        (B, 1 or C, H, W).
    images : Tensor
        (B, C, H, W) in [-1, 1].
    sign : {'signed', 'relu'}
        Keep the heatmap's sign, or set what is negative to 0 first (the paper's H >= 0).

    Returns
    -------
    Tensor
        (B, C, H, W); 0 where a heatmap is 0 everywhere.
    """
    heatmap = with_sign(heatmap, sign)
    peak = heatmap.abs().amax((1, 2, 3), keepdim=True)
    return heatmap / torch.where(peak > 0, peak, torch.ones_like(peak)) * images


def with_sign(heatmap: Tensor, sign: str) -> Tensor:
    """The map as it is ("signed"), or with 0 for what is negative ("relu", the paper's H >= 0)."""
    if sign not in ("signed", "relu"):
        raise ValueError(f"unknown sign {sign!r}; valid are signed, relu")
    return heatmap.clamp(min=0) if sign == "relu" else heatmap


def remove(images: Tensor, part: Tensor, betas: Tensor) -> Tensor:
    """x_beta = x - beta psi_distinct for every beta (Eq. 9), not clipped: (L, B, C, H, W)."""
    return images - betas[:, None, None, None, None] * part


def remove_energy(images: Tensor, part: Tensor, energies: Tensor) -> Tensor:
    """x - gamma psi, gamma >= 0 such that ||gamma psi||^2 / ||x||^2 is each energy.

    Every method then changes an image by the same amount: (L, B, C, H, W). A part that is 0
    everywhere removes nothing.
    """
    ratio = _energy(images) / _energy(part).clamp(min=1e-12)
    gamma = (energies[:, None] * ratio).sqrt()
    return images - gamma[:, :, None, None, None] * part


def delete(
    images: Tensor, heat: Tensor, shares: Sequence[float], fill: float, index: Tensor, seed: int
) -> Tensor:
    """Images without the pixels that matter most to a map (Table 2): (L, B, C, H, W).

    Parameters
    ----------
    images : Tensor
        (B, C, H, W).
    heat : Tensor
        (B, 1 or C, H, W), a heatmap itself (not w x), or psi_distinct; pixels are ranked by the
        mean of its absolute values over channels.
    shares : sequence of float
        L shares of the pixels, each rounded to a whole number of them.
    fill : float
        The value of a deleted pixel, in all channels.
    index : Tensor
        (B,), the place of each image in its split; with `seed` it decides between equal pixels.
    seed : int
        The run's seed.
    """
    ranks = heat.abs().mean(1).flatten(1).double().numpy()
    pixels = ranks.shape[1]
    rows = []
    for values, i in zip(ranks, index.tolist(), strict=True):
        ties = keyed_random.generator(seed, "deletion ties", 0, i).permutation(pixels)
        order = np.empty(pixels, dtype=np.int64)
        order[np.lexsort((ties, -values))] = np.arange(pixels)
        rows.append(order.reshape(heat.shape[2:]))
    place = torch.from_numpy(np.stack(rows))[:, None]
    counts = [round(share * pixels) for share in shares]
    return torch.stack([torch.where(place < k, fill, images) for k in counts])


def blur(part: Tensor) -> Tensor:
    """Mean of 3x3 pixels, the border repeated: what an adversarial pattern does not survive."""
    return F.avg_pool2d(F.pad(part, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def psnr(difference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB (peak 2), given what it is off by: (B,).

    At most 120 dB, so that no difference at all stays a number.
    """
    return 10 * torch.log10(4 / difference.square().mean((1, 2, 3)).clamp(min=4e-12))


def _energy(images: Tensor) -> Tensor:
    return images.square().sum((1, 2, 3))
