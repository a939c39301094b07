"""Layer methods against computations by hand, and the choice of the layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.explain.registry import build_explainer
from dxai.types import Unsupported

LAYER_METHODS = ["gradcam", "guided_gradcam", "internal_influence"]


class Pooled(nn.Module):
    """Convolution, ReLU, convolution, mean over the image, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.act(self.conv1(x))).mean((2, 3)))


def enlarged(map_: Tensor) -> Tensor:
    return F.interpolate(map_, (16, 16), mode="bilinear", align_corners=False)


def test_gradcam_by_hand(images: Tensor, target: Tensor) -> None:
    """The head is linear, so that the weight of map k is w_tk / (h w): CAM (Zhou et al. 2016)."""
    network = Pooled()
    with torch.no_grad():
        maps = network.conv2(F.relu(network.conv1(images)))
        weights = network.fc.weight[target] / 64
        expected = enlarged((weights[:, :, None, None] * maps).sum(1, keepdim=True))
    map_ = build_explainer("gradcam", network).attribute(images, target)
    assert map_.min() < 0  # left signed; evaluation applies the sign rule
    torch.testing.assert_close(map_, expected)


def test_internal_influence_by_hand(images: Tensor, target: Tensor) -> None:
    """The gradient at the last convolution is w_tk / (h w) all along the path."""
    network = Pooled()
    map_ = build_explainer("internal_influence", network).attribute(images, target)
    expected = (network.fc.weight[target].mean(1) / 64)[:, None, None, None]
    torch.testing.assert_close(map_, expected.detach().expand(8, 1, 16, 16))


def test_internal_influence_integrates_the_gradient(images: Tensor, target: Tensor) -> None:
    network = Pooled()
    settings = {"layer": "conv1", "steps": 300}
    map_ = build_explainer("internal_influence", network, settings).attribute(images, target)
    total = torch.zeros(8, 4, 8, 8)
    for step in range(1000):
        hidden = network.conv1(images * (step + 0.5) / 1000).detach().requires_grad_()
        logits = network.fc(network.conv2(F.relu(hidden)).mean((2, 3)))
        (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), hidden)
        total += gradient / 1000
    expected = enlarged(total.mean(1, keepdim=True))
    torch.testing.assert_close(map_, expected, rtol=0, atol=0.01 * float(expected.abs().max()))


class _Guided(torch.autograd.Function):
    """(Leaky) ReLU that lets positive gradients through alone (Springenberg et al. 2015)."""

    @staticmethod
    def forward(ctx, x: Tensor, slope: float) -> Tensor:
        ctx.factor = torch.where(x > 0, 1.0, slope)
        return x * ctx.factor

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient * ctx.factor).clamp(min=0), None


class Preactivated(nn.Module):
    """A residual block behind its activation, which may be called as a function."""

    def __init__(self, act) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv(self.act(x))
        return self.fc(self.act(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("act", "slope"),
    [
        (nn.ReLU(), 0.0),
        (nn.ReLU(inplace=True), 0.0),
        (F.relu, 0.0),
        (nn.LeakyReLU(0.2), 0.2),
        (lambda x: F.leaky_relu(x, negative_slope=0.2), 0.2),
    ],
    ids=["module", "in-place", "function", "leaky", "leaky function"],
)
def test_guided_gradcam_by_hand(act, slope: float, images: Tensor, target: Tensor) -> None:
    if isinstance(act, nn.ReLU) and act.inplace:
        network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), act, nn.Conv2d(4, 4, 3, padding=1))
        network.extend([act, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)])
        reference = nn.Sequential(*network)
        reference[1] = reference[3] = _Module(lambda x: _Guided.apply(x, 0.0))
        layer = "2"
    else:
        network, layer = Preactivated(act), "conv"
        reference = Preactivated(lambda x: _Guided.apply(x, slope))
    inputs = images.clone().requires_grad_()
    logits = reference(inputs).gather(1, target[:, None])
    (guided,) = torch.autograd.grad(logits.sum(), inputs)
    cam = build_explainer("gradcam", network, {"layer": layer}).attribute(images, target)
    explainer = build_explainer("guided_gradcam", network, {"layer": layer})
    map_ = explainer.attribute(images, target)
    torch.testing.assert_close(map_, guided * cam.clamp(min=0), rtol=1e-4, atol=1e-7)
    assert guided.abs().max() > 0 and cam.max() > 0


class _Module(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_layer_is_a_setting(
    method: str, build: Callable[[str], nn.Module], images: Tensor, target: Tensor
) -> None:
    network = build("resnet18")
    default = build_explainer(method, network).attribute(images, target)
    name = "layer4.0.conv1" if method == "internal_influence" else "layer3.1.conv2"
    named = build_explainer(method, network, {"layer": name}).attribute(images, target)
    assert torch.equal(named, default)
    block = build_explainer(method, network, {"layer": "layer3.0"}).attribute(images, target)
    assert not torch.allclose(block, default)


@pytest.mark.parametrize("method", LAYER_METHODS)
@pytest.mark.parametrize("name", ["layer9", ""])
def test_unknown_layer_lists_the_convolutions(
    method: str, name: str, build: Callable[[str], nn.Module]
) -> None:
    with pytest.raises(ValueError, match=rf"methods\.{method}\.layer: unknown.*features\.3"):
        build_explainer(method, build("simple"), {"layer": name})


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_unknown_network_uses_its_last_convolution(
    method: str, images: Tensor, target: Tensor
) -> None:
    network = Pooled()
    default = build_explainer(method, network).attribute(images, target)
    named = build_explainer(method, network, {"layer": "conv2"}).attribute(images, target)
    assert torch.equal(default, named)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_without_a_map_unsupported(method: str, images: Tensor, target: Tensor) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(256, 3), nn.ReLU())
    with pytest.raises(Unsupported, match="no layer"):
        build_explainer(method, flat).attribute(images, target)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 3), nn.ReLU()
    )
    with pytest.raises(Unsupported, match="layer 3 has no map"):
        build_explainer(method, network, {"layer": "3"}).attribute(images, target)


def _over_channels(x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_a_gradient_that_is_all_rounding_is_unsupported(
    method: str, images: Tensor, target: Tensor
) -> None:
    """The mean of an instance norm's map is a constant; rounding alone gives it a gradient."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(1))
    network.extend([nn.Flatten(), nn.Linear(4, 3), nn.ReLU()])
    with pytest.raises(Unsupported, match="after 0 leaves rounding noise"):
        build_explainer(method, network, {"layer": "0"}).attribute(images, target)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_rounding_noise_is_unsupported(method: str, images: Tensor, target: Tensor) -> None:
    """An instance norm takes the mean of a map away, and a layer norm that over channels."""
    torch.manual_seed(0)
    normalise = F.instance_norm
    if method == "internal_influence":
        normalise = _over_channels
    network = nn.Sequential(nn.Conv2d(1, 4, 3), _Module(normalise), nn.ReLU())
    network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)])
    with pytest.raises(Unsupported, match="after 0 leaves rounding noise"):
        build_explainer(method, network, {"layer": "0"}).attribute(images, target)


def test_guided_gradcam_needs_something_to_guide() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(Unsupported, match="ReLU"):
        build_explainer("guided_gradcam", network)
