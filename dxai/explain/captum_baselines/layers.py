"""Baselines that read one layer: Internal Influence, Grad-CAM and Guided Grad-CAM."""

from __future__ import annotations

from typing import Any, ClassVar

import captum.attr
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dxai.config.settings import Settings, choose
from dxai.explain.base import BatchExplainer
from dxai.explain.model_surgery import frozen_copy, require_same, traced_copy
from dxai.models.default_layers import Layer, Role, default_layer, named_layer
from dxai.models.devices import device_of, exact_float32
from dxai.models.feature_maps import main_tensor, with_main_tensor
from dxai.types import Unsupported


class LayerSettings(Settings):
    layer: str | None = Field(
        None,
        description="Name of the layer (`model.get_submodule`), for example `layer3.1.conv2`.\n"
        "null: the deepest convolution with a map of the image, or the deepest block where "
        "attention follows the convolutions; see `dxai.models.default_layers`.",
    )


class LayerExplainer(BatchExplainer):
    """Explainer that reads one layer of the classifier.

    Attributes
    ----------
    probe : nn.Module
        An identity that the layer's map (B, K, h, w) passes through, whatever the axes of its
        output. Captum reads this module.
    """

    Settings: ClassVar[type[Settings]] = LayerSettings
    role: ClassVar[Role] = "gradcam"

    def prepare(self) -> None:
        """Check the layer named in the settings; the default one is chosen with the first image."""
        self.probe: nn.Module | None = None
        name = self.settings.layer
        if name is None:
            return
        layers = dict(self.model.named_modules())
        if f"network.{name}" in layers:  # inside an adapter
            name = f"network.{name}"
        if name == "" or name not in layers:
            convolutions = [n for n, module in layers.items() if isinstance(module, nn.Conv2d)]
            choose(f"methods.{self.name}.layer", name, convolutions)
        self.layer = name

    def look_at(self, image: Tensor) -> None:
        """Choose the layer."""
        with exact_float32():
            self.read_layer(image.to(device_of(self.model)))

    def read_layer(self, inputs: Tensor) -> nn.Module:
        """Choose the layer with the first call, and return its probe."""
        if self.probe is None:
            if self.layer:
                layer = named_layer(self.model, inputs, self.role, self.layer)
            else:
                layer = default_layer(self.model, inputs, self.role)
            self.layer, self.probe = layer.name, attach_probe(layer)
        return self.probe


def attach_probe(layer: Layer) -> nn.Module:
    """Route the map of a layer's output through a new identity, and return that."""
    probe = nn.Identity()

    def through_probe(_: nn.Module, __: Any, output: Any) -> Any:
        tensor = main_tensor(output)
        if tensor is None or not layer.layout.fits(tensor):
            return output
        map_ = probe(layer.layout.read(tensor))
        return with_main_tensor(output, layer.layout.write(tensor, map_))

    layer.module.register_forward_hook(through_probe)
    return probe


class GradCam(LayerExplainer):
    """Feature maps weighted by their mean gradient and summed, no ReLU (Selvaraju et al. 2017)."""

    name = "gradcam"
    signs: ClassVar[tuple[str, ...]] = ("relu",)

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, 1, H, W)."""
        method = captum.attr.LayerGradCam(self.model, self.read_layer(inputs))
        return resized(method.attribute(inputs, target=target), inputs)


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
        influence = captum.attr.InternalInfluence(self.model, self.read_layer(inputs)).attribute(
            inputs,
            baselines=torch.zeros_like(inputs),
            target=target,
            n_steps=self.settings.steps,
            internal_batch_size=self.rows,
        )
        return resized(influence.mean(1, keepdim=True), inputs)


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
        untraced = ""
        try:
            self.guided: nn.Module = traced_copy(self.model)
        except Unsupported as reason:
            self.guided, untraced = frozen_copy(self.model), f" as modules ({reason})"
        if not guide_leaky(self.guided):
            raise Unsupported(
                f"guided backpropagation needs ReLU or leaky ReLU activations{untraced}"
            )

    def explain(self, inputs: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        layer = self.read_layer(inputs)
        require_same(self.guided, self.model, inputs[:1])
        # Captum's GuidedGradCam is this product, but turns an error in it into an empty map.
        cam = captum.attr.LayerGradCam(self.model, layer).attribute(
            inputs, target=target, relu_attributions=True
        )
        guided = captum.attr.GuidedBackprop(self.guided).attribute(inputs, target=target)
        return guided * resized(cam, inputs)


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


def resized(map_: Tensor, inputs: Tensor) -> Tensor:
    """Resize a layer's map (B, 1, h, w) bilinearly to the images' (B, 1, H, W) and type."""
    map_ = map_.to(inputs.dtype)
    return F.interpolate(map_, inputs.shape[2:], mode="bilinear", align_corners=False)
