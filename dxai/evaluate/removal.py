"""Taking the class-distinct part out of an image, fully or by degrees (Eq. 9 and the guards).

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ENERGIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Removed energy ||gamma psi||^2 / ||x||^2 of the guard `auc_energy`."""


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
    if sign not in ("signed", "relu"):
        raise ValueError(f"unknown sign {sign!r}; valid are signed, relu")
    if sign == "relu":
        heatmap = heatmap.clamp(min=0)
    peak = heatmap.abs().amax((1, 2, 3), keepdim=True)
    return heatmap / torch.where(peak > 0, peak, torch.ones_like(peak)) * images


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
