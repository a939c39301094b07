"""The paper's naive optimisation (Appendix E): gradient descent from x to a classless image."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dxai.config.settings import Settings
from dxai.explain.base import BatchExplainer


class NaiveSettings(Settings):
    iterations: int = Field(1000, ge=0, description="Maximum number of steps.")
    lr: float = Field(0.01, gt=0, description="The step dt of Appendix E.")
    tolerance: float = Field(
        1e-6,
        gt=0,
        description="An image is done when its divergence is below this (1e-6 in the paper).",
    )


class Naive(BatchExplainer):
    """Descent of psi_agnostic from x on the KL divergence to the uniform distribution.

    psi_agnostic := psi_agnostic - dt grad D_KL, and psi_distinct = x - psi_agnostic (Appendix E).
    The result resembles an adversarial perturbation. The target is ignored.
    """

    name = "naive"
    kind: ClassVar[Literal["heatmap", "distinct"]] = "distinct"
    signs: ClassVar[tuple[str, ...]] = ("part",)
    Settings = NaiveSettings

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """psi_distinct (B, C, H, W)."""
        agnostic = inputs.clone()
        left = torch.arange(len(inputs), device=inputs.device)
        for _ in range(self.settings.iterations):
            images = agnostic[left].requires_grad_()
            divergence = divergence_from_uniform(self.model(images))
            # Images are independent in eval mode, so this is the gradient of each image.
            (gradient,) = torch.autograd.grad(divergence.sum(), images)
            # NaN continues and is reported at the end.
            going = ~(divergence < self.settings.tolerance)
            left = left[going]
            if not len(left):
                break
            agnostic[left] -= self.settings.lr * gradient[going]
        return inputs - agnostic


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """D_KL = sum_i 1/c (log 1/c - log p_i) of Appendix E: (B, c) to (B,), at least 0."""
    classes = logits.shape[1]
    return -math.log(classes) - F.log_softmax(logits, dim=1).mean(1)
