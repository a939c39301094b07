"""LIME (Ribeiro et al. 2016) over superpixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import captum.attr
import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from pydantic import Field
from skimage.segmentation import slic
from torch import Tensor

from dxai.config.settings import Settings
from dxai.explain.base import BatchExplainer
from dxai.utils import keyed_random


class LimeSettings(Settings):
    samples: int = Field(
        1000,
        gt=0,
        description="Random sets of superpixels that are kept, the others being set to 0.",
    )
    segments: int = Field(50, gt=0, description="Number of superpixels that SLIC aims at.")
    compactness: float = Field(
        0.1,
        gt=0,
        description="Compactness of SLIC: the weight of nearness against likeness.\n"
        "For gray values in [0, 1]; colours are compared in Lab, whose values span 100, and the "
        "weight grows with them.",
    )


class Lime(BatchExplainer):
    """Weights of a linear model of the logit, given which superpixels are kept.

    The model is ridge regression with penalty 1, as in the authors' implementation, under
    Captum's default weights (exponential kernel of the cosine distance between images).
    Captum's default, a lasso with penalty 0.01, gives maps of zeros where logits are small.
    """

    name = "lime"
    signs: ClassVar[tuple[str, ...]] = ("relu",)
    Settings = LimeSettings

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, 1, H, W), constant within each superpixel."""
        images = zip(inputs.split(1), target.split(1), index.tolist(), strict=True)
        return torch.cat([self._one(*image) for image in images])

    def _one(self, image: Tensor, target: Tensor, index: int) -> Tensor:
        def kept(image: Tensor, num_interp_features: int, **_: Any) -> Iterator[Tensor]:
            size = (self.settings.samples, num_interp_features)
            coins = keyed_random.generator(self.seed, "lime", 0, index).integers(0, 2, size)
            yield from torch.from_numpy(coins).to(image.device).split(1)

        method = captum.attr.Lime(
            self.model, interpretable_model=SkLearnRidge(alpha=1.0), perturb_func=kept
        )
        superpixels = segment(image[0], self.settings.segments, self.settings.compactness)
        # Captum's DataLoader draws an unused seed from torch's generator.
        with torch.random.fork_rng(devices=[]):
            attribution = method.attribute(
                image,
                target=target,
                feature_mask=superpixels[None, None].to(image.device),
                n_samples=self.settings.samples,
                perturbations_per_eval=self.rows,
            )
        return attribution[:, :1]


def segment(image: Tensor, segments: int, compactness: float) -> Tensor:
    """Segment an image, (C, H, W) in [-1, 1], into superpixels by SLIC (Achanta et al. 2012).

    Returns (H, W), int64: the superpixel of each pixel, numbered from 0 without gaps.
    """
    values = (image.detach().cpu().numpy().astype(np.float64).transpose(1, 2, 0) + 1) / 2
    colour = len(image) == 3
    labels = slic(
        values,
        n_segments=segments,
        compactness=100 * compactness if colour else compactness,
        start_label=0,
        channel_axis=-1,
        convert2lab=colour,
    )
    _, consecutive = np.unique(labels, return_inverse=True)
    return torch.from_numpy(consecutive.reshape(labels.shape).astype(np.int64))
