"""A decomposition as one network with one input, the form for sharing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dxai.models.decomposer import Decomposer


class PackagedExplainer(nn.Module):
    """Decompose images as their predicted classes, all with the same `latent` z, (latent_dim,)."""

    latent: Tensor

    def __init__(self, decomposer: Decomposer, classifier: nn.Module, latent: Tensor) -> None:
        super().__init__()
        self.decomposer, self.classifier = decomposer, classifier
        self.register_buffer("latent", latent)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to psi (B, n, C, H, W); psi[:, 0] is class-distinct."""
        labels = self.classifier(images).argmax(1)
        return self.decomposer(images, labels, self.latent.expand(len(images), -1)).psi
