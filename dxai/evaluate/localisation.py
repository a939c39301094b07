"""Whether what was found is where, or what, is known to make the class."""

from __future__ import annotations

import torch
from torch import Tensor


def energy_inside(part: Tensor, masks: Tensor) -> Tensor:
    """Share of the energy of a class-distinct part that lies in the known region.

    Parameters
    ----------
    part : Tensor
        (B, C, H, W), psi_distinct or a heatmap.
    masks : Tensor
        (B, 1, H, W), in [0, 1]: the share of each pixel that belongs to the region.

    Returns
    -------
    Tensor
        (B,), in [0, 1]; higher is better. Chance is the mask's share of the area,
        ``masks.mean((1, 2, 3))``. A part of zeros gives 0.
    """
    energy = part.double().square()
    total = energy.sum((1, 2, 3))
    inside = (energy * masks.double()).sum((1, 2, 3))
    return torch.where(total > 0, inside / total.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def correlation(part: Tensor, known: Tensor) -> Tensor:
    """Pearson correlation, over all pixels and channels, with what is known to make the class.

    Parameters
    ----------
    part, known : Tensor
        (B, C, H, W): psi_distinct, and the image less the image without what makes its class.

    Returns
    -------
    Tensor
        (B,), in [-1, 1]; higher is better. A part without variance gives 0.
    """
    x, y = (values.double().flatten(1) for values in (part, known))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(
        scale > 0, (x * y).sum(1) / scale.clamp_min(torch.finfo(torch.float64).tiny), 0.0
    )
