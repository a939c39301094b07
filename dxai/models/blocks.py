"""Residual blocks of the generator (grouped by branch) and of the discriminator."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SLOPE = 0.2
"""Negative slope of every leaky ReLU."""
VECTOR = 16
"""Float32 values in the longest vector of a CPU, AVX-512's."""
EPSILON = 1e-5
"""Added to every variance, as `torch.nn.InstanceNorm2d` does."""


def channels_last(network: nn.Module) -> nn.Module:
    """Put weights into the memory format in which grouped convolutions are several times faster.

    A network marked by `default_format` keeps that, and one that could not be trained in this
    format is marked.
    """
    if getattr(network, "keeps_format", False):
        return network
    if any(_overruns(module) for module in network.modules()):
        return default_format(network)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def default_format(network: nn.Module) -> nn.Module:
    """Keep a network and its inputs in PyTorch's default memory format, NCHW.

    A user's code like ``x.view(len(x), -1)`` fails in any other.
    """
    network.keeps_format = True  # type: ignore[assignment]
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.register_forward_pre_hook(_contiguous)
    return network


def _overruns(module: nn.Module) -> bool:
    """Whether a step of its weights, in channels_last on a CPU, may overwrite other memory.

    oneDNN does so where fewer channels than fit into a vector are strided over (issue 6035 of
    uxlfoundation/oneDNN): heap corruption, a crash or wrong gradients, depending on the sizes.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.weight.requires_grad
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < VECTOR
    )


def _contiguous(network: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    # `contiguous()` would leave images of one channel, whose strides fit either format.
    plain = torch.contiguous_format
    return tuple(a.to(memory_format=plain) if isinstance(a, Tensor) else a for a in arguments)


class _Normalise(torch.autograd.Function):
    """scale * (x - mean) / deviation + shift over the pixels of each image and channel.

    `F.instance_norm` copies features into NCHW; the next operation copies them back or runs its
    slow path for mixed formats: together up to a fifth of a step. This keeps the format, and
    applies the leaky ReLU of the given slope in place; a slope of 1 is none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, slope: float) -> Tensor:
        pixels = _pixels(x)
        centred = pixels - pixels.mean(1, keepdim=True)
        inverse = torch.rsqrt(centred.square().mean(1, keepdim=True) + EPSILON)
        result = torch.addcmul(shift[:, None], centred, inverse * scale[:, None])
        ctx.slope = slope
        ctx.save_for_backward(centred, inverse, scale, result if slope != 1 else None)
        if slope != 1:
            F.leaky_relu_(result, slope)
        return _image(result, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        centred, inverse, scale, result = ctx.saved_tensors
        pixels = _pixels(gradient)
        if ctx.slope != 1:  # a positive slope keeps signs, so the result tells them
            pixels = torch.ops.aten.leaky_relu_backward(pixels, result, ctx.slope, True)
        mean = pixels.mean(1, keepdim=True)
        along = (pixels * centred).mean(1, keepdim=True) * inverse
        factor = inverse * scale[:, None]
        inner = torch.addcmul(-mean * factor, pixels, factor)
        inner.addcmul_(centred, -along * inverse * factor)
        count = pixels.shape[1]
        return _image(inner, gradient), along[:, 0] * count, mean[:, 0] * count, None


def _pixels(x: Tensor) -> Tensor:
    """View (B, K, H, W), in either memory format, as (B, HW, K)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _image(pixels: Tensor, like: Tensor) -> Tensor:
    return pixels.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def normalise(x: Tensor, scale: Tensor, shift: Tensor, slope: float = 1.0) -> Tensor:
    """Instance norm of x (B, K, H, W) with scale and shift (B, K), in float32 or wider.

    Values below 0 are then multiplied by `slope`. The output has the memory format of x and can be
    differentiated once.
    """
    if x.dtype == torch.bfloat16:  # statistics need more precision
        x, scale, shift = x.float(), scale.float(), shift.float()
    normalised: Tensor = _Normalise.apply(x, scale, shift, slope)
    return normalised


class InstanceNorm(nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` with weights, then a leaky ReLU of this slope, by `normalise`."""

    def __init__(self, channels: int, slope: float = 1.0) -> None:
        super().__init__(channels, EPSILON, affine=True)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = (p.expand(len(x), -1) for p in (self.weight, self.bias))
        return normalise(x, scale, shift, self.slope)


class AdaptiveInstanceNorm(nn.Module):
    """Instance norm whose scale and shift come from a style vector (AdaIN), then a leaky ReLU.

    One linear layer serves all branches: its rows belong to single channels, so no branch sees
    another's weights.
    """

    def __init__(self, style_dim: int, channels: int, slope: float = 1.0) -> None:
        super().__init__()
        self.affine = nn.Linear(style_dim, 2 * channels)
        self.slope = slope

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Normalise x (B, K, H, W) with style (B, style_dim)."""
        scale, shift = self.affine(style).chunk(2, dim=1)
        return normalise(x, 1 + scale, shift, self.slope)


class ReflectionPadding(nn.Module):
    """Mirror the borders of square images until their side is a multiple of `multiple`.

    Flips and concatenations, because the backward pass of `F.pad` has no deterministic algorithm on
    a GPU. A side that is a multiple already is left unchanged.
    """

    def __init__(self, side: int, multiple: int) -> None:
        super().__init__()
        self.side = side
        self.padded = side + -side % multiple
        self.before = (self.padded - side) // 2
        self.after = self.padded - side - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, side, side) to (B, K, padded, padded)."""
        if self.after == 0:
            return x
        side, before, after = self.side, self.before, self.after
        top, bottom = x[:, :, 1 : before + 1].flip(2), x[:, :, side - 1 - after : side - 1].flip(2)
        x = torch.cat([top, x, bottom], 2)
        left, right = x[..., 1 : before + 1].flip(3), x[..., side - 1 - after : side - 1].flip(3)
        return torch.cat([left, x, right], 3)

    def crop(self, x: Tensor) -> Tensor:
        """Cut (..., padded, padded) back to (..., side, side)."""
        if self.after == 0:
            return x
        kept = slice(self.before, self.before + self.side)
        return x[..., kept, kept]


class _Replicate(torch.autograd.Function):
    """Copy the border pixels of (B, K, H, W) outwards once: (B, K, H + 2, W + 2).

    The backward pass of `F.pad` has no deterministic algorithm on a GPU, and that of slices and
    concatenations goes through the whole image once for each of them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # With one channel both formats are contiguous: the stride tells which is meant.
        last = x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)
        ctx.memory_format = torch.channels_last if last else torch.contiguous_format
        shape = *x.shape[:2], x.shape[2] + 2, x.shape[3] + 2
        padded = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=ctx.memory_format)
        padded[:, :, 1:-1, 1:-1] = x
        for inner, outer in ((1, 0), (-2, -1)):
            padded[:, :, outer, 1:-1] = padded[:, :, inner, 1:-1]
        for inner, outer in ((1, 0), (-2, -1)):
            padded[..., outer] = padded[..., inner]
        return padded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        inside = gradient[:, :, 1:-1, 1:-1].clone(memory_format=ctx.memory_format)
        for edge in (0, -1):
            inside[:, :, edge] += gradient[:, :, edge, 1:-1]
            inside[..., edge] += gradient[:, :, 1:-1, edge]
            for end in (0, -1):
                inside[:, :, edge, end] += gradient[:, :, edge, end]
        return inside


class Convolution(nn.Conv2d):
    """3x3 convolution that keeps the size of its input.

    Outside the image are zeros, or, by `replicate`, copies of the border pixels; then it can be
    differentiated once.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, replicate: bool, bias: bool = True
    ) -> None:
        padding = 0 if replicate else 1
        super().__init__(inputs, outputs, 3, padding=padding, groups=groups, bias=bias)
        self.replicate = replicate

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        if self.replicate:
            x = _Replicate.apply(x)
        return super().forward(x)


class EncoderBlock(nn.Module):
    """Pre-activated residual block with instance norm; `down` halves the resolution.

    The first convolution has no bias, which the instance norm after it would remove.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, down: bool, replicate: bool = False
    ) -> None:
        super().__init__()
        self.down = down
        self.norm1 = InstanceNorm(inputs, SLOPE)
        self.conv1 = Convolution(inputs, inputs, groups, replicate, bias=False)
        self.norm2 = InstanceNorm(inputs, SLOPE)
        self.conv2 = Convolution(inputs, outputs, groups, replicate)
        self.shortcut = _shortcut(inputs, outputs, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H or H/2, W or W/2)."""
        residual, skip = self.conv1(self.norm1(x)), x
        if self.down:
            residual, skip = F.avg_pool2d(residual, 2), F.avg_pool2d(skip, 2)
        skip = self.shortcut(skip)  # it commutes with the mean, and is cheaper after it
        residual = self.conv2(self.norm2(residual))
        return (skip + residual).div_(math.sqrt(2))


class DecoderBlock(nn.Module):
    """Pre-activated residual block with AdaIN; `up` doubles the resolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        groups: int,
        style_dim: int,
        up: bool,
        replicate: bool = False,
        upsampling: str = "nearest",
    ) -> None:
        super().__init__()
        self.up, self.upsampling = up, upsampling
        self.norm1 = AdaptiveInstanceNorm(style_dim, inputs, SLOPE)
        self.conv1 = Convolution(inputs, outputs, groups, replicate, bias=False)
        self.norm2 = AdaptiveInstanceNorm(style_dim, outputs, SLOPE)
        self.conv2 = Convolution(outputs, outputs, groups, replicate)
        self.shortcut = _shortcut(inputs, outputs, groups)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, style_dim) to (B, outputs, H or 2H, W or 2W)."""
        residual = self.norm1(x, style)
        skip = self.shortcut(x)  # it commutes with the enlargement, and is cheaper before it
        if self.up:
            residual, skip = self._double(residual), self._double(skip)
        residual = self.conv1(residual)
        residual = self.conv2(self.norm2(residual, style))
        return (skip + residual).div_(math.sqrt(2))

    def _double(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode=self.upsampling)


class DiscriminatorBlock(nn.Module):
    """Residual block without norm that halves the resolution by average pooling (Table 8).

    Activations are separate modules, so that Guided Grad-CAM and LRP can find them.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.relu1 = nn.LeakyReLU(SLOPE)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.relu2 = nn.LeakyReLU(SLOPE)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = _shortcut(inputs, outputs, 1)
        self.shortcut_pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        residual = self.conv2(self.relu2(self.pool(self.conv1(self.relu1(x)))))
        # The 1x1 shortcut commutes with the mean and is cheaper after it.
        return (self.shortcut(self.shortcut_pool(x)) + residual) / math.sqrt(2)


def _shortcut(inputs: int, outputs: int, groups: int) -> nn.Module:
    if inputs == outputs:
        return nn.Identity()
    return nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
