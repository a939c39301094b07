"""Every method on networks as users write them: the right map, or a reason why there is none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec
from dxai.explain.registry import EXPLAINERS, build_explainer
from dxai.models.classifiers import build_classifier
from dxai.types import Unsupported
from tests.unit.explain.zoo import (
    CHANNELS,
    CLASSES,
    OTHERS,
    PIECEWISE_LINEAR,
    SIZE,
    ZOO,
    ConvNeXt,
    ViT,
    stirred,
)

SETTINGS = {
    "ig": {"steps": 40},
    "internal_influence": {"steps": 5},
    "gradient_shap": {"samples": 3},
    "lime": {"samples": 10, "segments": 8},
    "naive": {"iterations": 3, "lr": 0.1},
}
BY_LAYER = ("gradcam", "internal_influence", "guided_gradcam")
TRACED = "torch.fx cannot trace"
NO_LAYERS = "no layer that the logits depend on"
NO_RELU = "needs ReLU"
NO_GRADIENT = "no gradient of the logits reaches the image"
UNSUPPORTED: dict[str, dict[str, str]] = {
    "no gradient": {"lrp": TRACED, "guided_gradcam": NO_LAYERS, "gradcam": NO_LAYERS}
    | {"internal_influence": NO_LAYERS}
    | dict.fromkeys(("ig", "gradient_shap", "naive"), NO_GRADIENT),
    "instance norm": {"lrp": "no rule for InstanceNorm2d"},
    "ViT, class token": {"lrp": TRACED, "guided_gradcam": NO_RELU},
    "ViT, mean": {"lrp": "positions is used outside", "guided_gradcam": NO_RELU},
    "torch transformer": {"lrp": "no rule for TransformerEncoder", "guided_gradcam": NO_RELU},
    "shared block": {"lrp": "no rule for LayerNorm", "guided_gradcam": NO_RELU},
    "ConvNeXt": {"lrp": "no rule for LayerNorm", "guided_gradcam": NO_RELU},
    "channels last": {"lrp": "no rule for LayerNorm", "guided_gradcam": NO_RELU},
    "attention pool": {"lrp": TRACED},
    "branching": {"lrp": TRACED, "guided_gradcam": TRACED},
    "export": {"lrp": TRACED, "guided_gradcam": TRACED, "gradcam": NO_LAYERS}
    | {"internal_influence": NO_LAYERS},
    "TorchScript": {"lrp": TRACED, "guided_gradcam": TRACED, "gradcam": NO_LAYERS}
    | {"internal_influence": NO_LAYERS},
}
UNSUPPORTED["TorchScript inside"] = UNSUPPORTED["TorchScript"]

LAYERS = {
    "functional": "conv2",
    "dropout": "3",
    "float16 inside": "features.2",
    "instance norm": "norm2",
    "ViT, class token": "blocks.1.norm1",
    "ViT, mean": "norm",
    "torch transformer": "encoder.layers.1.norm2",
    "shared block": "block",
    "ConvNeXt": "stage2.1",
    "channels last": "blocks.1",
    "attention pool": "features.2",
    "branching": "conv",
}
"""The default layer of Grad-CAM; that of residual networks is `layer2.conv2`."""
OF_INFLUENCE = LAYERS | {"instance norm": "conv2", "ConvNeXt": "stage2.1.norm"}
"""The default layer of Internal Influence."""


@pytest.fixture
def pictures() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return 2 * torch.rand(2, CHANNELS, SIZE, SIZE, generator=draw) - 1


TARGET = torch.tensor([0, 2])


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return stirred(build())


@pytest.mark.parametrize("name", ZOO)
def test_every_method_gives_a_map_or_a_reason(name: str, pictures: Tensor) -> None:
    network = made(ZOO[name])
    with torch.no_grad():
        expected = network(pictures)
    for method in EXPLAINERS:
        reason = UNSUPPORTED.get(name, {}).get(method)
        if reason is not None:
            with pytest.raises(Unsupported, match=reason):
                explainer = build_explainer(method, network, SETTINGS.get(method, {}))
                explainer.attribute(pictures, TARGET)
            continue
        explainer = build_explainer(method, network, SETTINGS.get(method, {}))
        map_ = explainer.attribute(pictures, TARGET)
        assert map_.shape[2:] == pictures.shape[2:] and map_.dtype == torch.float32
        assert torch.isfinite(map_).all() and map_.abs().max() > 0, method
        if method in BY_LAYER:
            layers = OF_INFLUENCE if method == "internal_influence" else LAYERS
            assert explainer.layer == layers.get(name, "layer2.conv2")
    with torch.no_grad():
        assert torch.equal(network(pictures), expected)  # left unchanged


def gradient(network: nn.Module, images: Tensor) -> Tensor:
    inputs = images.clone().requires_grad_()
    logits = network(inputs).gather(1, TARGET[:, None])
    return torch.autograd.grad(logits.sum(), inputs)[0]


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_lrp_and_ig_are_the_gradient_times_the_image(name: str, pictures: Tensor) -> None:
    """In networks without biases, whose logits are linear along each ray from 0."""
    network = made(PIECEWISE_LINEAR[name])
    precise = network if name != "float16 inside" else copy.deepcopy(network).float()
    expected = gradient(precise, pictures) * pictures
    scale = float(expected.abs().max())
    for method in ("lrp", "ig"):
        explainer = build_explainer(method, network, SETTINGS.get(method, {}))
        found = explainer.attribute(pictures, TARGET)
        rounding = 0.1 if (method, name) == ("ig", "float16 inside") else 1e-3
        torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding * scale)


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("Residual", IMAGENET),
        ("Residual", IMAGENET | {"size": 48}),
        ("Residual", IMAGENET | {"size": 20}),
        ("Functional", {"value_range": [0, 255]}),
        ("WithFields", {}),
        ("InDictionary", {"field": "scores"}),
        ("AuxiliaryHead", IMAGENET | {"class_names": ["c", "a", "b"]}),
        ("HalfInside", IMAGENET),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_maps_pass_through_the_adapter(kind: str, entry: dict[str, Any], pictures: Tensor) -> None:
    spec = ClassifierSpec(arch=f"tests.unit.explain.zoo:{kind}", **entry)
    torch.manual_seed(0)
    network = stirred(build_classifier(spec, CHANNELS, ["a", "b", "c"], SIZE))
    expected = gradient(network, pictures) * pictures
    lrp = build_explainer("lrp", network).attribute(pictures, TARGET)
    scale, rounding = float(expected.abs().max()), 0.1 if kind == "HalfInside" else 1e-3
    torch.testing.assert_close(lrp, expected, rtol=rounding, atol=rounding * scale)
    with torch.no_grad():
        change = network(pictures) - network(torch.zeros_like(pictures))
    ig = build_explainer("ig", network, {"steps": 200}).attribute(pictures, TARGET)
    change = change.gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(ig.sum((1, 2, 3)), change, rtol=0.03, atol=1e-3)
    gradcam = build_explainer("gradcam", network)
    assert gradcam.attribute(pictures, TARGET).shape[2:] == pictures.shape[2:]
    inner = {"Functional": "conv2", "HalfInside": "features.2"}.get(kind, "layer2.conv2")
    assert gradcam.layer == f"network.{inner}"
    named = build_explainer("gradcam", network, {"layer": inner})  # as the user knows it
    assert torch.equal(named.attribute(pictures, TARGET), gradcam.attribute(pictures, TARGET))


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "no gradient"])
def test_ig_is_complete(name: str, pictures: Tensor) -> None:
    network = made(OTHERS[name])
    map_ = build_explainer("ig", network, {"steps": 200}).attribute(pictures, TARGET)
    with torch.no_grad():
        change = network(pictures) - network(torch.zeros_like(pictures))
    change = change.gather(1, TARGET[:, None])[:, 0]
    # An instance norm jumps near 0, where the deviation is that of nothing.
    bound = 0.2 if name == "instance norm" else 0.03
    torch.testing.assert_close(map_.sum((1, 2, 3)), change, rtol=bound, atol=2e-3)


def by_hand(map_: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGET[:, None]).sum(), map_)
    cam = (gradient.mean((2, 3), keepdim=True) * map_).sum(1, keepdim=True)
    return F.interpolate(cam, (SIZE, SIZE), mode="bilinear", align_corners=False).detach()


def test_gradcam_of_a_vision_transformer_by_hand(pictures: Tensor) -> None:
    """The map of the 16 patches; the class token beside them has its own gradient."""
    network = made(ViT)
    x = network.patches(pictures).flatten(2).transpose(1, 2)
    x = torch.cat([network.token.expand(2, -1, -1), x], 1) + network.positions
    x = network.blocks[0](x)
    last = network.blocks[1]
    normed = last.norm1(x)
    map_ = normed[:, 1:].transpose(1, 2).reshape(2, 12, 4, 4)
    y = x + last.attention(torch.cat([normed[:, :1], map_.flatten(2).transpose(1, 2)], 1))
    y = y + last.mlp(last.norm2(y))
    logits = network.head(network.norm(y)[:, 0])
    torch.testing.assert_close(logits, network(pictures))
    found = build_explainer("gradcam", network).attribute(pictures, TARGET)
    torch.testing.assert_close(found, by_hand(map_, logits))


def test_gradcam_of_a_convnext_by_hand(pictures: Tensor) -> None:
    network = made(ConvNeXt)
    map_ = network.stage2(network.downsample(network.stage1(network.stem(pictures))))
    logits = network.head(network.norm(map_.mean((2, 3))))
    found = build_explainer("gradcam", network).attribute(pictures, TARGET)
    torch.testing.assert_close(found, by_hand(map_, logits))


def test_gradcam_before_an_in_place_activation_by_hand(pictures: Tensor) -> None:
    network = made(ZOO["functional"])
    map_ = network.conv2(F.max_pool2d(F.relu(network.conv1(pictures)), 2))
    logits = network.fc(F.relu(map_).mean((2, 3)))
    found = build_explainer("gradcam", network).attribute(pictures, TARGET)
    torch.testing.assert_close(found, by_hand(map_, logits))
    assert len(logits[0]) == CLASSES
