"""Baselines from the gradient with respect to the image."""

from __future__ import annotations

import captum.attr
import torch
from pydantic import Field
from torch import Tensor

from dxai.config.settings import Settings
from dxai.explain.base import BatchExplainer
from dxai.explain.global_draws import keyed_globals


class IntegratedGradientsSettings(Settings):
    steps: int = Field(
        50, gt=0, description="Points of the Gauss-Legendre rule along the straight path."
    )


class IntegratedGradients(BatchExplainer):
    """Gradients along the path from the zero image, times the image (Sundararajan et al. 2017)."""

    name = "ig"
    Settings = IntegratedGradientsSettings

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, C, H, W), whose sum is near f(x) - f(0)."""
        return captum.attr.IntegratedGradients(self.model).attribute(
            inputs,
            baselines=torch.zeros_like(inputs),
            target=target,
            n_steps=self.settings.steps,
            internal_batch_size=self.rows,
        )


class GradientShapSettings(Settings):
    samples: int = Field(
        25, gt=0, description="Random points of the path, each with noise of its own."
    )
    stdev: float = Field(
        0.0,
        ge=0,
        description="Standard deviation of the noise added to the image, in its units "
        "(Captum's default: 0).",
    )


class GradientShap(BatchExplainer):
    """Expected gradients at random points between the zero image and x (Lundberg and Lee 2017).

    Captum draws from global generators, so each image is explained separately, under generators
    seeded with its key.
    """

    name = "gradient_shap"
    Settings = GradientShapSettings

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        images = zip(inputs.split(1), target.split(1), index.tolist(), strict=True)
        return torch.cat([self._one(*image) for image in images])

    def _one(self, image: Tensor, target: Tensor, index: int) -> Tensor:
        method = captum.attr.GradientShap(self.model)
        total = torch.zeros_like(image)
        for first in range(0, self.settings.samples, self.rows):
            samples = min(self.rows, self.settings.samples - first)
            with keyed_globals(self.seed, "gradient-shap", first, index, image.device):
                total += samples * method.attribute(
                    image,
                    baselines=torch.zeros_like(image),
                    n_samples=samples,
                    stdevs=self.settings.stdev,
                    target=target,
                )
        return total / self.settings.samples
