"""Random, the control of Table 1: grain without meaning, and how much of it a network stands.

Removing w x with white noise w multiplies an image by grain that no camera makes. Table 1 measures
what a network uses only if the network stands that; one that does not is brittle.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dxai.metrics.curves import area
from dxai.metrics.removal import distinct_from_heatmap, remove
from dxai.utils import keyed_random

STEPS = 10
"""Steps of beta, as in Table 1."""
BATCH = 32
"""Images per forward pass."""


def random_maps(seed: int, index: Iterable[int], size: tuple[int, ...]) -> Tensor:
    """Draw a map of independent U[0, 1) values for each index, (B, 1, *size), on the CPU."""
    return keyed_random.uniform(seed, "random-map", 0, index, (1, *size))


@torch.no_grad()
def random_auc(
    network: nn.Module, images: Tensor, labels: Tensor, index: Tensor, seed: int
) -> float:
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
    float
        1 if no accuracy is lost; about 0.5 if any grain brings two classes down to chance; NaN if
        no image is classified correctly.
    """
    betas = torch.linspace(0, 1, STEPS + 1)
    hits = torch.zeros(len(betas), dtype=torch.float64)
    for rows in torch.arange(len(images)).split(BATCH):
        x = images[rows]
        maps = random_maps(seed, index[rows].tolist(), tuple(x.shape[2:]))
        distinct = distinct_from_heatmap(maps, x, "relu")
        for k, beta in enumerate(betas):
            (grained,) = remove(x, distinct, beta[None])
            hits[k] += int((network(grained).argmax(1) == labels[rows]).sum())
    return float(area(betas.numpy(), (hits / len(images)).numpy()))


def describe_grain(auc: float, images: int, least: float) -> str:
    """Say in one line what `random_auc` of so many images means for Table 1.

    `least` is the setting `evaluate.valid_auc`. A brittle network's line starts with "warning".
    """
    left = f"random multiplicative grain leaves {auc:.2f} of its accuracy on {images} images"
    if auc >= least:
        return f"{left}: Table 1 is valid for it"
    if auc < least:
        return (
            f"warning: {left} (evaluate.valid_auc: {least:g}): brittle, so Table 1 would measure "
            "how it breaks, and nothing is claimed; gradient methods may win by patterns too faint "
            "to see. Train it with random crops, colour jitter, blur and a little noise "
            "(`crop`, `jitter`, `blur` and `noise` of `classifier`)"
        )
    return f"no image of {images} is classified correctly, so it is not known what grain does to it"
