"""The values passed between modules.

Shapes are written with B images of a batch, n branches, C channels, H x W pixels and c classes.
Images are float32 in [-1, 1] unless noted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Unsupported(Exception):
    """Raised when a method does not apply to a classifier; the text is the table's reason."""


@dataclass(frozen=True)
class Batch:
    """Images of one split.

    Attributes
    ----------
    images : Tensor
        (B, C, H, W), float32 in [-1, 1].
    labels : Tensor
        (B,), int64 in [0, c).
    index : Tensor
        (B,), int64: the index of each image in its split, which keys random draws.
    ids : list of str
        Image ids of the manifest.
    groups : list of str
        Unit of resampling of each image: a photograph's source block, a patient, an aerial image.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    ids: list[str]
    groups: list[str]


@dataclass(frozen=True)
class Decomposition:
    """An image as the sum of branches (Eqs. 3 and 4 of the paper).

    Attributes
    ----------
    image : Tensor
        (B, C, H, W), the input x.
    psi : Tensor
        (B, n, C, H, W), the branches; branch 0 is psi_distinct.
    """

    image: Tensor
    psi: Tensor

    @property
    def distinct(self) -> Tensor:
        """psi_distinct, (B, C, H, W)."""
        return self.psi[:, 0]

    @property
    def agnostic(self) -> Tensor:
        """The class-agnostic part, (B, C, H, W)."""
        return self.psi[:, 1:].sum(1)

    @property
    def reconstruction(self) -> Tensor:
        """x_hat, the sum of all branches, (B, C, H, W)."""
        return self.psi.sum(1)

    @property
    def residual(self) -> Tensor:
        """x - x_hat: distinct + agnostic + residual is the image."""
        return self.image - self.reconstruction


def to_unit_range(images: Tensor) -> Tensor:
    """Scale uint8 images in [0, 255] to float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1
