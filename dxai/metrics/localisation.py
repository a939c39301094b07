"""Compare attributions with the known class-distinct region or difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class GroundTruth:
    """Known class-distinct content of a batch; NaN for images where it is unknown.

    Attributes
    ----------
    masks : Tensor
        (B, 1, H, W), in [0, 1]: the class-distinct share of each pixel.
    difference : Tensor
        (B, C, H, W): the image minus its neutral version, without the class-distinct content.
    """

    masks: Tensor
    difference: Tensor


def localise(heat: Tensor, distinct: Tensor, truth: GroundTruth) -> dict[str, Tensor]:
    """Compute every measure for a batch, each (B,), NaN where undefined for an image.

    Parameters
    ----------
    heat : Tensor
        (B, 1 or C, H, W): the heatmap, or psi_distinct.
    distinct : Tensor
        (B, C, H, W): psi_distinct.
    truth : GroundTruth
        Of the same images, on the CPU.

    Returns
    -------
    dict
        On the CPU, where all of it is computed:
        `pointing`, `average_precision`, `energy_inside` and `mask_area` of `heat` against the mask
        (known if it covers at least half of some pixel), and `correlation` of psi_distinct with
        the known difference.
    """
    heat, distinct = heat.cpu(), distinct.cpu()
    missing = torch.full((len(distinct),), torch.nan, dtype=torch.float64)
    inside = truth.masks >= 0.5
    there = inside.flatten(1).any(1)
    differs = (truth.difference.nan_to_num() != 0).flatten(1).any(1)
    masks = truth.masks.nan_to_num()
    return {
        "pointing": torch.where(there, pointing(heat, inside), missing),
        "average_precision": torch.where(there, average_precision(heat, inside), missing),
        "energy_inside": torch.where(there, energy_inside(heat, masks), missing),
        "mask_area": torch.where(there, masks.double().mean((1, 2, 3)), missing),
        "correlation": torch.where(
            differs, correlation(distinct, truth.difference.nan_to_num()), missing
        ),
    }


def pointing(heat: Tensor, inside: Tensor) -> Tensor:
    """Pointing game (Zhang et al. 2018), (B,): 1 if the absolute heat peaks in the region, else 0.

    Parameters
    ----------
    heat : Tensor
        (B, 1 or C, H, W); its absolute values are averaged over channels.
    inside : Tensor
        (B, 1, H, W), bool. Chance is the region's share of the area.
    """
    peak = heat.abs().mean(1).flatten(1).argmax(1)
    return inside.flatten(1).gather(1, peak[:, None])[:, 0].double()


def average_precision(heat: Tensor, inside: Tensor) -> Tensor:
    """Area under the precision-recall curve of the pixels ranked by absolute heat.

    Ties are grouped, as in scikit-learn's ``average_precision_score``.

    Parameters
    ----------
    heat, inside : Tensor
        As in `pointing`; chance is the same share of the area.

    Returns
    -------
    Tensor
        (B,), in [0, 1]; 0 for an empty region.
    """
    scores = heat.abs().mean(1).flatten(1).double().numpy()
    found = []
    for values, truth in zip(scores, inside.flatten(1).numpy(), strict=True):
        order = np.argsort(-values, kind="stable")
        values, hits = values[order], np.cumsum(truth[order])
        last = np.append(values[1:] != values[:-1], True)  # the last of each run of equals
        precision = (hits / np.arange(1, len(hits) + 1))[last]
        recall = hits[last] / max(hits[-1], 1)
        found.append(float(np.sum(np.diff(recall, prepend=0.0) * precision)))
    return torch.tensor(found, dtype=torch.float64)


def energy_inside(distinct: Tensor, masks: Tensor) -> Tensor:
    """Share of the energy of psi_distinct (or a heatmap) inside the known region.

    Parameters
    ----------
    distinct : Tensor
        (B, C, H, W), psi_distinct or a heatmap.
    masks : Tensor
        (B, 1, H, W), in [0, 1]: the region's share of each pixel.

    Returns
    -------
    Tensor
        (B,), in [0, 1]; higher is better, and chance is ``masks.mean((1, 2, 3))``. Zeros give 0.
    """
    energy = distinct.double().square()
    total = energy.sum((1, 2, 3))
    inside = (energy * masks.double()).sum((1, 2, 3))
    return torch.where(total > 0, inside / total.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def correlation(distinct: Tensor, truth: Tensor) -> Tensor:
    """Pearson correlation with the known difference, over all pixels and channels.

    Parameters
    ----------
    distinct, truth : Tensor
        (B, C, H, W): psi_distinct, and the image minus its neutral version.

    Returns
    -------
    Tensor
        (B,), in [-1, 1]; higher is better, and no variance gives 0.
    """
    x, y = (values.double().flatten(1) for values in (distinct, truth))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(
        scale > 0, (x * y).sum(1) / scale.clamp_min(torch.finfo(torch.float64).tiny), 0.0
    )
