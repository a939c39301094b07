"""The values passed between modules.

Shapes are written with B images of a batch, n branches, C channels, H x W pixels and c classes.
Images are float32 in [-1, 1] unless noted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NEUTRAL, GENERATED = "neutral", "generated"
"""Kinds of class-distinct part: the smallest one without which the classifier is undecided (Eq. 2,
found by `dxai.explain.projection`), and the generator's branch psi_1, which the paper scores."""


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


class Images(ABC):
    """The images of one split, on disk (`ShardedDataset`) or in memory (`InMemoryImages`).

    Attributes
    ----------
    labels : ndarray
        int64, (N,): indices into `class_names`.
    ids, groups : list of str
        (N,), as in `Batch`.
    blocks : ndarray
        int64, (R + 1,): the start of each of the R parts that are read at once, and the end.
    resident : bool
        Whether images may be visited in any order.
    window : int
        Parts that fit into memory together.
    """

    class_names: list[str]
    channels: int
    image_size: int
    labels: np.ndarray
    ids: list[str]
    groups: list[str]
    blocks: np.ndarray
    resident: bool
    window: int

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def pixels_of(self, indices: Sequence[int]) -> np.ndarray:
        """Return uint8, (B, S, S) gray or (B, S, S, 3) RGB: only these images are read."""

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Images at these indices of the split, in this order, float32 in [-1, 1]."""
        chosen = [int(i) for i in indices]
        return Batch(
            images=to_unit_range(channels_first(self.pixels_of(chosen))),
            labels=torch.from_numpy(self.labels[chosen]),
            index=torch.tensor(chosen, dtype=torch.int64),
            ids=[self.ids[i] for i in chosen],
            groups=[self.groups[i] for i in chosen],
        )

    def batches(
        self, batch_size: int, indices: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches over `indices` (default: all, in order); the last may be smaller."""
        chosen = range(len(self)) if indices is None else indices
        for start in range(0, len(chosen), batch_size):
            yield self.batch(chosen[start : start + batch_size])


def channels_first(pixels: np.ndarray) -> Tensor:
    """(B, S, S) or (B, S, S, 3) as a tensor (B, C, S, S) of the same type."""
    stack = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stack))


@dataclass(frozen=True)
class Decomposition:
    """An image as the sum of a class-distinct and a class-agnostic part, exactly (Def. 2).

    Attributes
    ----------
    image : Tensor
        (B, C, H, W), the input x.
    psi : Tensor
        (B, n, C, H, W), the generator's branches (Eqs. 3 and 4); their sum is near x.
    projected : Tensor, optional
        (B, C, H, W), the class-distinct part without which the classifier is undecided (Eq. 2), in
        place of the generator's, psi_1.
    neutrality : Tensor, optional
        (B,), entropy of the classifier's answer to x - projected over that of an undecided one.
    """

    image: Tensor
    psi: Tensor
    projected: Tensor | None = None
    neutrality: Tensor | None = None

    def __getitem__(self, i: int) -> Decomposition:
        """Return one image's parts, as a batch of one."""
        one = slice(i, i + 1)
        projected = None if self.projected is None else self.projected[one]
        neutrality = None if self.neutrality is None else self.neutrality[one]
        return Decomposition(self.image[one], self.psi[one], projected, neutrality)

    @property
    def distinct(self) -> Tensor:
        """The class-distinct part, (B, C, H, W)."""
        return self.psi[:, 0] if self.projected is None else self.projected

    @property
    def agnostic(self) -> Tensor:
        """The class-agnostic part, image - distinct, (B, C, H, W)."""
        return self.image - self.distinct

    @property
    def reconstruction(self) -> Tensor:
        """x_hat, the sum of all branches, (B, C, H, W): how well the generator knows the image."""
        return self.psi.sum(1)

    @property
    def error(self) -> Tensor:
        """image - reconstruction, (B, C, H, W)."""
        return self.image - self.reconstruction


def to_unit_range(images: Tensor) -> Tensor:
    """Scale uint8 images in [0, 255] to float32 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1
