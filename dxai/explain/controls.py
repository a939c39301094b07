"""Controls that a method must beat to be better than noise."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dxai.explain.base import BatchExplainer
from dxai.metrics.grain import KINDS, grain_of, random_maps
from dxai.utils import keyed_random


class RandomMap(BatchExplainer):
    """A map of independent U[0, 1) values, one channel: the row "Random" of Table 1.

    Its own rule is the paper's. Under "signed" the same draws are weights in [-1, 1).
    """

    name = "random"
    signs: ClassVar[tuple[str, ...]] = tuple(KINDS)

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, 1, H, W)."""
        return random_maps(self.seed, index.tolist(), tuple(inputs.shape[2:])).to(inputs)

    def under(self, heatmap: Tensor, sign: str) -> Tensor:
        """Return the map for "relu"; for "signed" its draws, none of them negative, in [-1, 1)."""
        return grain_of(heatmap, sign)


def shuffled(distinct: Tensor, index: Tensor, seed: int) -> Tensor:
    """Permute the pixels of each image, all channels of a pixel together.

    Parameters
    ----------
    distinct : Tensor
        (B, C, H, W), psi_distinct.
    index : Tensor
        (B,), the index of each image in its split; with `seed` it keys the permutation.
    seed : int
        The run's seed.

    Returns
    -------
    Tensor
        (B, C, H, W): the same values, energy and histogram without structure.
    """
    images = []
    for image, i in zip(distinct.flatten(2), index.tolist(), strict=True):
        order = keyed_random.generator(seed, "shuffled", 0, i).permutation(image.shape[1])
        images.append(image[:, torch.from_numpy(order).to(image.device)])
    return torch.stack(images).reshape(distinct.shape)


def random_phase(distinct: Tensor, index: Tensor, seed: int) -> Tensor:
    """Randomise the phases of each image, keeping the amplitude spectrum of each channel.

    The phases of one white noise image are added to all channels (Galerne et al. 2011, "Random
    phase textures"), which keeps the relation between channels; the mean keeps its sign.
    Parameters, shapes and energy are as in `shuffled`.
    """
    size = distinct.shape[2:]
    noise = [
        keyed_random.generator(seed, "random-phase", 0, i).normal(size=size) for i in index.tolist()
    ]
    # The spectrum of real noise is symmetric, which keeps the result real.
    spectrum = torch.fft.rfft2(torch.from_numpy(np.stack(noise)))[:, None]
    turn = spectrum / spectrum.abs()
    turn[..., 0, 0] = 1
    turned = torch.fft.rfft2(distinct.double()) * turn.to(distinct.device)
    return torch.fft.irfft2(turned, s=tuple(size)).to(distinct)
