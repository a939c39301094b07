"""Generator and mapping network as one: images and classes in, decompositions out."""

from __future__ import annotations

from torch import Tensor, nn

from dxai.models.blocks import channels_last
from dxai.models.generator import Generator, MappingNetwork
from dxai.types import Decomposition


class Decomposer(nn.Module):
    """What is kept of a training run.

    Parameters
    ----------
    channels, classes, image_size : int
        Of the images and labels.
    branches, branch_width, branch_max_width, coarsest, style_dim, agnostic_skip, normalise_input
        See `Generator`.
    latent_dim, mapping_width
        See `MappingNetwork`.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        image_size: int,
        branches: int = 5,
        branch_width: int = 7,
        branch_max_width: int = 64,
        coarsest: int = 16,
        agnostic_skip: bool = False,
        normalise_input: bool = False,
        style_dim: int = 64,
        latent_dim: int = 16,
        mapping_width: int = 512,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.generator = Generator(
            channels,
            image_size,
            branches,
            branch_width,
            branch_max_width,
            coarsest,
            style_dim,
            agnostic_skip,
            normalise_input,
        )
        self.mapping = MappingNetwork(
            latent_dim, classes, self.generator.styles, style_dim, mapping_width
        )
        channels_last(self)

    def forward(self, images: Tensor, labels: Tensor, latent: Tensor) -> Decomposition:
        """Decompose images (B, C, H, W) as classes (B,) with latents (B, latent_dim)."""
        return Decomposition(images, self.generator(images, self.mapping(latent, labels)))
