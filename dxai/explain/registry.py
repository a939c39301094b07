"""The explainers of Table 1 besides the decomposition.

Their modules are imported on first use, so that only stages that need Captum import it.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from dxai.config.settings import choose
from dxai.explain.base import BatchExplainer, Explainer

EXPLAINERS = {
    "lrp": ("captum_baselines.lrp", "LRP"),
    "ig": ("captum_baselines.gradients", "IntegratedGradients"),
    "gradient_shap": ("captum_baselines.gradients", "GradientShap"),
    "internal_influence": ("captum_baselines.layers", "InternalInfluence"),
    "guided_gradcam": ("captum_baselines.layers", "GuidedGradCam"),
    "gradcam": ("captum_baselines.layers", "GradCam"),
    "lime": ("captum_baselines.lime", "Lime"),
    "random": ("controls", "RandomMap"),
    "naive": ("naive", "Naive"),
}
"""Method name to module and `BatchExplainer` class."""


def build_explainer(
    name: str, classifier: nn.Module, settings: dict[str, Any] | None = None, seed: int = 0
) -> Explainer:
    """Build the explainer `name` for `classifier`.

    `classifier` maps images (B, C, H, W) in [-1, 1] to logits (B, c); the other parameters are
    those of `BatchExplainer`.

    Raises
    ------
    ParamsError
        For an unknown method or setting; a ValueError that names the valid ones.
    Unsupported
        If the method cannot apply to this classifier; the message says why.
    """
    return explainer_class(name)(classifier, settings or {}, seed)


def explainer_class(name: str) -> type[BatchExplainer]:
    """Import the class of a method."""
    module, kind = EXPLAINERS[choose("method", name, EXPLAINERS)]
    return getattr(importlib.import_module(f"dxai.explain.{module}"), kind)
