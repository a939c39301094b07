"""The explainers of Table 1 besides the decomposition.

Their modules are imported on first use, so that only stages that need Captum import it.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from dxai.config.settings import choose
from dxai.explain.base import Explainer

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
    """Build the explainer `name` for `classifier`, images (B, C, H, W) in [-1, 1] to logits (B, c).

    Other parameters and errors are those of `BatchExplainer`. An unknown method raises
    `ParamsError`, a ValueError that names the valid ones.
    """
    module, kind = EXPLAINERS[choose("method", name, EXPLAINERS)]
    found = getattr(importlib.import_module(f"dxai.explain.{module}"), kind)
    return found(classifier, settings or {}, seed)
