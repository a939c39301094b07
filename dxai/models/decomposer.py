"""Generator and mapping network as one module: images and classes in, decompositions out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from dxai.models.blocks import channels_last
from dxai.models.generator import Generator, MappingNetwork
from dxai.types import Decomposition


class Decomposer(nn.Module):
    """The trained network that decomposes images.

    Parameters
    ----------
    channels, classes, image_size : int
        Of the images and labels.
    latent_dim, mapping_width : int
        Sizes of z and of the hidden layers of `MappingNetwork`.
    generator
        Options of `Generator`.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        image_size: int,
        latent_dim: int = 16,
        mapping_width: int = 512,
        **generator: Any,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.generator = Generator(channels, image_size, **generator)
        styles, style_dim = self.generator.styles, self.generator.style_dim
        self.mapping = MappingNetwork(latent_dim, classes, styles, style_dim, mapping_width)
        channels_last(self)

    def forward(self, images: Tensor, labels: Tensor, latent: Tensor) -> Decomposition:
        """Decompose images (B, C, H, W) as classes (B,) with latents (B, latent_dim)."""
        return Decomposition(images, self.generator(images, self.mapping(latent, labels)))

    def branches(self, images: Tensor, styles: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Yield psi (B, n, C, H, W) for each pair of labels and latents, from one encoder pass."""
        features = self.generator.encode(images)
        for labels, latent in styles:
            yield self.generator.decode(images, features, self.mapping(latent, labels))


OPTIONS = (*list(inspect.signature(Generator).parameters)[2:], "latent_dim", "mapping_width")
"""Arguments of `Decomposer` beyond the shape of the data; settings share their names."""
