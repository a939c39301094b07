"""Images of one split that are held in memory, for trainings without a prepared dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from dxai.types import Images


class InMemoryImages(Images):
    """One split.

    Parameters
    ----------
    pixels : ndarray
        uint8, (N, S, S) gray or (N, S, S, 3) RGB.
    labels : ndarray
        int64, (N,): indices into the class names.
    ids : sequence of str
        (N,), unique names; each image is a group of its own.
    class_names : sequence of str
        Every class, in the order of the labels.
    """

    resident = True
    window = 1

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        ids: Sequence[str],
        class_names: Sequence[str],
    ) -> None:
        self.pixels, self.labels = pixels, labels.astype(np.int64)
        self.ids, self.groups = list(ids), list(ids)
        self.class_names = list(class_names)
        self.image_size = int(pixels.shape[1])
        self.channels = 1 if pixels.ndim == 3 else int(pixels.shape[3])
        self.blocks = np.array([0, len(pixels)])

    def pixels_of(self, indices: Sequence[int]) -> np.ndarray:
        return self.pixels[indices]

    def spread(self, per_class: int) -> list[int]:
        """Indices of at most `per_class` images of each class, spread evenly over its images."""
        found: list[int] = []
        for label in range(len(self.class_names)):
            of_class = np.flatnonzero(self.labels == label)
            count = min(per_class, len(of_class))
            at = np.linspace(0, len(of_class) - 1, count).round().astype(int)
            found += of_class[at].tolist()
        return found

    def subset(self, indices: Sequence[int]) -> InMemoryImages:
        """Return the images at these indices as a split of their own."""
        chosen = list(indices)
        ids = [self.ids[i] for i in chosen]
        return InMemoryImages(self.pixels[chosen], self.labels[chosen], ids, self.class_names)

    def digests(self) -> list[str]:
        """Identify each image by its pixels: 16 hexadecimal digits."""
        return [hashlib.blake2b(one.tobytes(), digest_size=8).hexdigest() for one in self.pixels]

    def digest(self) -> str:
        """Identify all images and their labels."""
        found = hashlib.blake2b(repr((self.class_names, self.pixels.shape)).encode(), digest_size=8)
        found.update(self.pixels.tobytes())
        found.update(self.labels.tobytes())
        return found.hexdigest()
