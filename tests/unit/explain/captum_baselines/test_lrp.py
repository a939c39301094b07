"""LRP: conservation where it must hold, and the gradient times the image where that is the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.explain.captum_baselines.lrp import propagatable
from dxai.explain.registry import build_explainer
from dxai.types import Unsupported


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            conv(1, 4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Identity(),
            conv(4, 4),
            nn.LeakyReLU(0.2),
            nn.Sequential(),
            nn.Dropout(0.5),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 3, bias=False),
        )


class Residual(nn.Module):
    """Blocks before and behind their activation, with and without a shortcut convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv(1, 4), conv(4, 4), conv(4, 4)
        self.shortcut, self.fc = conv(4, 4, 1), nn.Linear(4, 3, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.act(self.conv1(x) + x)
        y = self.conv2(F.leaky_relu(x, 0.2))
        y += self.shortcut(x)
        y = F.avg_pool2d(y, 2) / math.sqrt(2)
        return self.fc(self.act(y).mean((2, 3)))


class Dense(nn.Module):
    """Concatenation, views with sizes read from the tensor, a tensor used in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(1, 4), conv(5, 2)
        self.fc = nn.Linear(2 * 16 * 16 + 256, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.cat([x, F.relu(self.conv1(x))], 1)
        hidden = 0.5 * F.relu(self.conv2(hidden))
        return self.fc(torch.cat([hidden.view(hidden.size(0), -1), x.flatten(1)], 1))


@pytest.mark.parametrize("kind", [Plain, Residual, Dense])
def test_relevance_is_conserved_without_biases(kind, images: Tensor, target: Tensor) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    logits = network(images).gather(1, target[:, None])[:, 0]
    relevance = build_explainer("lrp", network).attribute(images, target).sum((1, 2, 3))
    assert logits.abs().min() > 1e-3
    torch.testing.assert_close(relevance, logits, rtol=1e-3, atol=1e-5)


def test_residual_sum_splits_in_proportion() -> None:
    """y = relu(3 x_1) + x_2 on the pixels (2, 4): relevance 6 and 4; no gain for a lost sign."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Conv2d(1, 1, 1, bias=False)
            self.fc = nn.Linear(2, 1, bias=False)
            nn.init.constant_(self.scale.weight, 3.0)
            nn.init.ones_(self.fc.weight)
            self.register_buffer("second", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            left, right = x.chunk(2, dim=3)
            return self.fc(torch.cat([F.relu(self.scale(left)), right], 3).flatten(1))

    image = torch.tensor([[2.0, 4.0], [-2.0, 4.0]]).reshape(2, 1, 1, 2)
    relevance = build_explainer("lrp", Sum()).attribute(image, torch.zeros(2).long())
    expected = torch.tensor([[6.0, 4.0], [0.0, 4.0]]).reshape(2, 1, 1, 2)
    torch.testing.assert_close(relevance, expected)


def test_equals_gradient_times_image(classifier: nn.Module, images: Tensor, target: Tensor) -> None:
    """For piecewise linear networks and epsilon to 0, biases or not (Ancona et al. 2018)."""
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(inputs).gather(1, target[:, None]).sum(), inputs)
    expected = gradient * images
    relevance = build_explainer("lrp", classifier).attribute(images, target)
    scale = float(expected.abs().max())
    torch.testing.assert_close(relevance, expected, rtol=1e-3, atol=1e-3 * scale)


class Clipped(nn.Module):
    """Activations with an upper bound, and padding by values of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv1, self.conv2 = nn.ReflectionPad2d(1), conv(1, 4), nn.Conv2d(4, 4, 3)
        self.act, self.fc = nn.ReLU6(inplace=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(9 * self.conv1(self.pad(x)))
        return self.fc(F.relu6(self.conv2(F.pad(x, (1, 1, 1, 1), "replicate"))).mean((2, 3)))


def test_clipped_activations_pass_no_relevance(images: Tensor, target: Tensor) -> None:
    torch.manual_seed(0)
    network = Clipped()
    assert (network.conv1(network.pad(images)) * 9 > 6).any()
    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(inputs).gather(1, target[:, None]).sum(), inputs)
    relevance = build_explainer("lrp", network).attribute(images, target)
    scale = float((gradient * images).abs().max())
    torch.testing.assert_close(relevance, gradient * images, rtol=1e-3, atol=1e-3 * scale)


def test_epsilon_absorbs_relevance(classifier: nn.Module, images: Tensor, target: Tensor) -> None:
    sizes = [
        build_explainer("lrp", classifier, {"epsilon": e}).attribute(images, target).abs().sum()
        for e in (1e-9, 1.0, 100.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_prepared_copy_computes_the_same_without_batch_norm(
    classifier: nn.Module, images: Tensor
) -> None:
    prepared = propagatable(classifier)
    torch.testing.assert_close(prepared(images), classifier(images), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.modules())


def test_repeated_calls_agree(classifier: nn.Module, images: Tensor, target: Tensor) -> None:
    explainer = build_explainer("lrp", classifier)
    first = explainer.attribute(images, target)
    assert torch.equal(explainer.attribute(images, target), first)


class Multiplied(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * x).mean((2, 3))


class Called(nn.Module):
    """A convolution whose result goes through a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.function = conv(1, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x)).mean((2, 3))


class BareParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight).mean((2, 3))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU()), r"no rule for GELU \(1\)"),
        (nn.Sequential(nn.Conv2d(1, 3, 3), nn.InstanceNorm2d(3)), "no rule for InstanceNorm2d"),
        (Multiplied(), "no rule for the operation mul"),
        (Called(lambda h: torch.mul(h, other=h)), "no rule for the operation mul"),
        (Called(lambda h: torch.div(2.0, h)), "no rule for the operation div"),
        (Called(lambda h: torch.div(h, 2, rounding_mode="floor")), "no rule for the operation div"),
        (BareParameter(), "weight is used outside"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_other_networks_are_unsupported(network: nn.Module, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        build_explainer("lrp", network)
