"""Baselines that read one layer: Internal Influence, Grad-CAM and Guided Grad-CAM."""

from __future__ import annotations

from typing import ClassVar

import captum.attr
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dxai.config.settings import Settings, choose
from dxai.explain.base import BatchExplainer
from dxai.explain.model_surgery import frozen_copy, require_same, traced_copy
from dxai.models.default_layers import default_layers
from dxai.types import Unsupported


class LayerSettings(Settings):
    layer: str | None = Field(
        None,
        description="Name of the layer (`model.get_submodule`), for example `layer3.1.conv2`.\n"
        "null: `dxai.models.default_layers`, which for an unknown network is its last "
        "convolution.",
    )


class LayerExplainer(BatchExplainer):
    """Explainer that reads one layer of the classifier, `self.layer`."""

    Settings: ClassVar[type[Settings]] = LayerSettings
    role: ClassVar[str] = "gradcam"

    def prepare(self) -> None:
        """Find the layer named in the settings, or the default one for `role`."""
        name = self.settings.layer
        if name is None:
            name = default_layers(self.model)[self.role]
        if name is None:
            raise Unsupported("the classifier has no convolution whose map could be read")
        layers = dict(self.model.named_modules())
        if name == "" or name not in layers:
            convolutions = [n for n, module in layers.items() if isinstance(module, nn.Conv2d)]
            choose(f"methods.{self.name}.layer", name, convolutions)
        self.layer = layers[name]


class GradCam(LayerExplainer):
    """Feature maps weighted by their mean gradient and summed, no ReLU (Selvaraju et al. 2017)."""

    name = "gradcam"
    signs: ClassVar[tuple[str, ...]] = ("relu",)

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, 1, H, W)."""
        method = captum.attr.LayerGradCam(self.model, self.layer)
        return resized(method.attribute(inputs, target=target), inputs, self.name)


class InternalInfluenceSettings(LayerSettings):
    steps: int = Field(
        50,
        gt=0,
        description="Points of the Gauss-Legendre rule along the straight path "
        "from the zero image.",
    )


class InternalInfluence(LayerExplainer):
    """Gradient at a layer, mean over channels and a path from 0 to x (Leino et al. 2018)."""

    name = "internal_influence"
    signs: ClassVar[tuple[str, ...]] = ("relu",)
    Settings = InternalInfluenceSettings
    role = "internal_influence"

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, 1, H, W)."""
        influence = captum.attr.InternalInfluence(self.model, self.layer).attribute(
            inputs,
            baselines=torch.zeros_like(inputs),
            target=target,
            n_steps=self.settings.steps,
            internal_batch_size=self.rows,
        )
        return resized(influence.mean(1, keepdim=True), inputs, self.name)


class GuidedGradCam(LayerExplainer):
    """Guided backpropagation times the positive part of Grad-CAM (Selvaraju et al. 2017).

    Guided backpropagation drops negative gradients at each ReLU, and here at each leaky ReLU,
    for which it was not defined. Tracing the copy finds activations called as functions; in a
    network that torch.fx cannot trace, only activation modules are guided.
    """

    name = "guided_gradcam"

    def prepare(self) -> None:
        """Find the layer, and guide the activations of a copy of the classifier."""
        super().prepare()
        try:
            self.guided: nn.Module = traced_copy(self.model)
        except Unsupported:
            self.guided = frozen_copy(self.model)
        if not guide_leaky(self.guided):
            raise Unsupported("guided backpropagation needs ReLU or leaky ReLU activations")

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        require_same(self.guided, self.model, inputs[:1])
        # Captum's GuidedGradCam is this product, but turns an error in it into an empty map.
        cam = captum.attr.LayerGradCam(self.model, self.layer).attribute(
            inputs, target=target, relu_attributions=True
        )
        guided = captum.attr.GuidedBackprop(self.guided).attribute(inputs, target=target)
        return guided * resized(cam, inputs, self.name)


class _LeakyReLU(nn.ReLU):
    """Leaky ReLU derived from nn.ReLU, so that Captum guides it."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.slope)


def guide_leaky(model: nn.Module) -> int:
    """Replace each leaky ReLU by one that Captum guides; return the number of guided modules."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.LeakyReLU):
            model.set_submodule(name, _LeakyReLU(module.negative_slope))
    return sum(isinstance(module, nn.ReLU) for module in model.modules())


def resized(map_: Tensor, inputs: Tensor, method: str) -> Tensor:
    """Resize a layer's map (B, 1, h, w) bilinearly to the images' (B, 1, H, W)."""
    if map_.ndim != 4:
        raise Unsupported(f"{method} needs a layer with a map; this one gives {map_.ndim} axes")
    return F.interpolate(map_, inputs.shape[2:], mode="bilinear", align_corners=False)
