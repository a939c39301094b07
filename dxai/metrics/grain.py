"""Random, the control of Table 1: grain without meaning, and how much of it a network stands.

Removing w x with white noise w multiplies an image by grain that no camera makes: weights in [0, 1)
take contrast away, those in [-1, 1) also add some, as signed heatmaps and decompositions do. Table
1 measures what a network uses only if the network stands both; one that does not is brittle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from dxai.metrics.curves import area
from dxai.metrics.removal import distinct_from_heatmap, remove
from dxai.utils import keyed_random

STEPS = 10
"""Steps of beta, as in Table 1."""
BATCH = 32
"""Images per forward pass."""
KINDS = {
    "relu": ("only takes contrast away", "only takes some away"),
    "signed": ("also adds contrast", "also adds some"),
}
"""The signs of Random, the paper's first: what such grain does, in full and beside the other."""


def random_maps(seed: int, index: Iterable[int], size: tuple[int, ...]) -> Tensor:
    """Draw a map of independent U[0, 1) values for each index, (B, 1, *size), on the CPU."""
    return keyed_random.uniform(seed, "random-map", 0, index, (1, *size))


def grain_of(maps: Tensor, sign: str) -> Tensor:
    """Return the weights of a sign from random maps w: w in [0, 1) ("relu") or 2 w - 1 ("signed").

    Both signs share their draws.
    """
    return 2 * maps - 1 if sign == "signed" else maps


@torch.no_grad()
def random_aucs(
    network: nn.Module, images: Tensor, labels: Tensor, index: Tensor, seed: int
) -> dict[str, float]:
    """Area under accuracy(x - beta w x) / accuracy(x) for random maps w, the AUC of Table 1.

    Parameters
    ----------
    network : nn.Module
        Returns logits (B, c); in eval mode and on the CPU.
    images : Tensor
        (B, C, H, W), float32 in [-1, 1].
    labels, index : Tensor
        (B,), int64: the class of each image, and its index, which keys its map.
    seed : int
        Key of the maps, with `index`.

    Returns
    -------
    dict
        Sign of Random to its area: 1 if no accuracy is lost; about 0.5 if any grain brings two
        classes down to chance; NaN if no image is classified correctly.
    """
    betas = torch.linspace(0, 1, STEPS + 1).tolist()
    hits = {sign: torch.zeros(len(betas), dtype=torch.float64) for sign in KINDS}
    for rows in torch.arange(len(images)).split(BATCH):
        x = images[rows]
        maps = random_maps(seed, index[rows].tolist(), tuple(x.shape[2:]))
        for sign, hit in hits.items():
            distinct = distinct_from_heatmap(grain_of(maps, sign), x, sign)
            for k, grained in enumerate(remove(x, distinct, betas)):
                hit[k] += int((network(grained).argmax(1) == labels[rows]).sum())
    return {
        sign: float(area(np.array(betas), (hit / len(images)).numpy()))
        for sign, hit in hits.items()
    }


def describe_grain(aucs: Mapping[str, float], which: str, least: float) -> str:
    """Say in one line what `random_aucs` means for Table 1.

    The lower area decides. `which` names the images, such as "24 validation images"; `least` is the
    setting `evaluate.valid_auc`. A brittle network's line starts with "warning".
    """
    (worst, auc), (other, beside) = sorted(aucs.items(), key=lambda item: item[1])
    left = (
        f"random grain that {KINDS[worst][0]} leaves {auc:.2f} of its accuracy on {which} "
        f"({beside:.2f} if it {KINDS[other][1]})"
    )
    if auc >= least:
        return f"{left}: Table 1 is valid for it"
    if auc < least:
        return (
            f"warning: {left} (evaluate.valid_auc: {least:g}): brittle, so Table 1 would measure "
            "how it breaks, and nothing is claimed; gradient methods may win by patterns too faint "
            "to see. Train it with random crops, colour jitter, blur and a little noise "
            "(`crop`, `jitter`, `blur` and `noise` of `classifier`)"
        )
    return f"none of {which} is classified correctly, so it is not known what grain does to it"
