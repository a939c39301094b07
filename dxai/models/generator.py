"""The branched style-transfer generator and its mapping network.

Shapes: B images, n branches, C channels of the images, K AdaIN blocks, S style size.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.models.blocks import (
    Convolution,
    DecoderBlock,
    EncoderBlock,
    InstanceNorm,
    ReflectionPadding,
)


class Generator(nn.Module):
    """n parallel U-Nets as one network of grouped convolutions (Section 3.2 of the paper).

    Branches are independent: every convolution is grouped by branch, and every norm works on single
    channels.

    Parameters
    ----------
    channels, image_size : int
        Shape of the images. Sides that cannot be halved often enough are padded inside.
    branches, style_dim : int
        n and S.
    branch_width, branch_max_width : int
        Channels of one branch at full resolution, doubling at each halving up to the maximum.
    coarsest : int
        Smallest side of the coarsest feature map, pixels: images are halved while it is at least
        this.
    agnostic_skip : bool
        Add x / (n - 1) to each agnostic branch; the last layer starts small.
    normalise_input : bool
        Instance-normalise the input image, which discards its global colour.
    last_norm : bool
        Instance-normalise the features before the last layer, which discards their level and
        contrast.
    padding : {'zeros', 'replicate'}
        What convolutions see outside the image. In flat images zeros make lines along the border,
        which the norms amplify.
    upsampling : {'nearest', 'bilinear'}
        How the decoder enlarges features; 'nearest' leaves a grid that later layers must remove.
    """

    memory_format = torch.channels_last
    """Format of all features, in which grouped convolutions are several times faster."""

    def __init__(
        self,
        channels: int,
        image_size: int,
        branches: int = 5,
        branch_width: int = 7,
        branch_max_width: int = 64,
        coarsest: int = 16,
        agnostic_skip: bool = False,
        normalise_input: bool = False,
        last_norm: bool = True,
        style_dim: int = 64,
        padding: str = "zeros",
        upsampling: str = "nearest",
    ) -> None:
        super().__init__()
        if coarsest > image_size:
            raise ValueError(
                f"decompose.coarsest is {coarsest}; it must be at most prepare.image_size "
                f"({image_size})"
            )
        halvings = (image_size // coarsest).bit_length() - 1
        self.padding = ReflectionPadding(image_size, 1 << halvings)
        replicate = padding == "replicate"
        self.channels, self.branches, self.style_dim = channels, branches, style_dim
        self.agnostic_skip, self.normalise_input = agnostic_skip, normalise_input
        widths = [
            branches * min(branch_width << level, branch_max_width) for level in range(halvings + 1)
        ]
        # Every branch sees the whole image, so the first convolution needs no groups.
        self.stem = Convolution(channels, widths[0], 1, replicate)
        self.encoder = nn.ModuleList(
            EncoderBlock(i, o, branches, True, replicate) for i, o in itertools.pairwise(widths)
        )
        self.bottleneck = EncoderBlock(widths[-1], widths[-1], branches, False, replicate)
        self.styled_bottleneck = DecoderBlock(
            widths[-1], widths[-1], branches, style_dim, False, replicate
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(i, o, branches, style_dim, True, replicate, upsampling)
            for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.styles = 1 + len(self.decoder)
        self.last_norm = InstanceNorm(widths[0]) if last_norm else nn.Identity()
        self.last = nn.Conv2d(widths[0], branches * channels, 1, groups=branches)
        if agnostic_skip:
            with torch.no_grad():
                self.last.weight.mul_(0.1)
                assert self.last.bias is not None
                self.last.bias.zero_()

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features of x (B, C, H, W) from fine to coarse, independent of the style."""
        if self.normalise_input:
            x = F.instance_norm(x)
        features = [self.stem(self.padding(x).to(memory_format=self.memory_format))]
        for block in self.encoder:
            features.append(block(features[-1]))
        features[-1] = self.bottleneck(features[-1])
        return features

    def decode(self, x: Tensor, features: list[Tensor], style: Tensor) -> Tensor:
        """Branches psi (B, n, C, H, W) from features of x and styles (B, K, S)."""
        h = self.styled_bottleneck(features[-1], style[:, 0])
        for level, block in enumerate(self.decoder):
            h = block(h, style[:, level + 1]) + features[-2 - level]
        psi = self.last(torch.tanh(self.last_norm(h)))
        psi = self.padding.crop(psi.unflatten(1, (self.branches, self.channels)))
        if self.agnostic_skip:
            share = x[:, None] / (self.branches - 1)
            psi = torch.cat([psi[:, :1], psi[:, 1:] + share], dim=1)
        return psi

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Images (B, C, H, W) and styles (B, K, S) to branches (B, n, C, H, W)."""
        return self.decode(x, self.encode(x), style)

    def pair(self, x: Tensor, style_y: Tensor, style_other: Tensor) -> tuple[Tensor, Tensor]:
        """Branches psi^y and psi^y~ of x, each (B, n, C, H, W), from a single encoder pass."""
        features = [torch.cat([f, f]) for f in self.encode(x)]
        psi = self.decode(torch.cat([x, x]), features, torch.cat([style_y, style_other]))
        psi_y, psi_other = psi.chunk(2)
        return psi_y, psi_other


class MappingNetwork(nn.Module):
    """Map a latent and a class to one style vector per AdaIN block.

    Parameters
    ----------
    latent_dim, width, style_dim : int
        Sizes of z, of the hidden layers, and of a style vector (S).
    classes : int
        Number of classes; each has a head of its own.
    styles : int
        K, the number of AdaIN blocks of the generator.
    """

    def __init__(
        self, latent_dim: int, classes: int, styles: int, style_dim: int, width: int
    ) -> None:
        super().__init__()
        self.classes, self.styles, self.style_dim = classes, styles, style_dim
        layers: list[nn.Module] = []
        for inputs in (latent_dim, width, width, width):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
        self.shared = nn.Sequential(*layers)
        self.heads = nn.Linear(width, classes * styles * style_dim)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """z (B, latent_dim) and y (B,) to styles (B, K, S)."""
        heads = self.heads(self.shared(z)).unflatten(1, (self.classes, self.styles, self.style_dim))
        return heads[torch.arange(len(y), device=y.device), y]
