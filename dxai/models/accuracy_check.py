"""Accuracy of given weights, compared with chance, other scalings and other orders of classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec

UNLIKELY, RARE = 0.01, 0.05
"""Probability below which an accuracy is not that of a useful network; below which it is not that
of chance."""
GOOD = 0.9
"""Accuracy from which other scalings are not tried."""


@dataclass(frozen=True)
class Finding:
    """One line; `fatal` if the classifier must not be explained as it is."""

    text: str
    fatal: bool = True


@dataclass(frozen=True)
class Preprocessing:
    """Scaling of images in [-1, 1] for a network, as an entry of `classifiers` says it."""

    value_range: tuple[float, float]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    @classmethod
    def of(cls, spec: ClassifierSpec) -> Preprocessing:
        return cls(spec.expected_range, spec.mean or (0.0,), spec.std or (1.0,))

    def __str__(self) -> str:
        low, high = self.value_range
        scaled = [f"mean: {list(self.mean)}", f"std: {list(self.std)}"]
        scaled = scaled if any(self.mean) or set(self.std) != {1.0} else []
        if not scaled or self.value_range != (0.0, 1.0):  # the default with mean or std
            scaled.insert(0, f"value_range: [{low:g}, {high:g}]")
        return ", ".join(scaled)

    def apply(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to the network's values."""
        low, high = self.value_range
        return (low + (images + 1) * ((high - low) / 2) - _row(self.mean)) / _row(self.std)

    def undo(self, values: Tensor) -> Tensor:
        """Return the images for which `apply` returns `values`."""
        low, high = self.value_range
        return (values * _row(self.std) + _row(self.mean) - low) * (2 / (high - low)) - 1


def _row(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


BGR = " and the channels in the order BGR (`images.flip(1)` in its forward)"
USUAL = {
    1: [Preprocessing((0.0, 1.0), [0.1307], [0.3081])],  # MNIST
    3: [
        Preprocessing((0.0, 1.0), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),  # ImageNet
        Preprocessing((0.0, 255.0), [123.68, 116.779, 103.939]),  # Caffe
    ],
}
"""Preprocessing that networks are trained with, by number of channels, beside plain ranges."""


def check_accuracy(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    spec: ClassifierSpec,
) -> Iterator[Finding]:
    """Compare the accuracy with that of chance, of another order of classes and other scalings.

    A remedy is named if more images than luck explains are then right. It is fatal to leave it out
    if it halves the errors, or if the accuracy is that of chance.
    """
    count, classes = len(labels), len(class_names)
    present = confusion_of(network, images, labels, classes)
    hits, chance = int(present.trace()), _chance(present)
    useless = is_useless(hits, count, chance)
    if hits == count:
        return
    # The simplest change first: an equally good one does not replace it.
    remedies = [_reordered(present, "", class_names, spec)]
    if useless or hits < GOOD * count:
        tried = [
            (settings, confusion_of(network, given, labels, classes))
            for settings, given in _alternatives(images, spec)
        ]
        remedies += [(int(found.trace()), settings) for settings, found in tried]
        remedies += [_reordered(found, settings, class_names, spec) for settings, found in tried]
    better, settings = max(remedies, key=lambda remedy: remedy[0])
    helps = better > hits and is_gain(
        hits, better, count, len(remedies) * math.factorial(min(classes, 8))
    )
    if not (useless or helps):
        return
    text = f"accuracy {hits / count:.2f} on {count} images"
    text += f" is no better than chance ({chance:.2f})" if useless else " could be higher"
    if helps:
        text += f": with {settings} it is {better / count:.2f}"
    else:
        text += "; check `weights`, `class_names`, `mean`, `std`, `value_range` and `size`"
    yield Finding(text, fatal=useless or 2 * (count - better) <= count - hits)


def _reordered(
    confusion: np.ndarray, settings: str, class_names: Sequence[str], spec: ClassifierSpec
) -> tuple[int, str]:
    """Return the hits with the best order of classes, and the settings for it."""
    order, hits = best_order(confusion)
    names = f"class_names: [{', '.join(_renamed(class_names, order, spec))}]"
    return hits, f"{settings} and {names}" if settings else names


def is_useless(hits: int, count: int, chance: float) -> bool:
    """Whether an accuracy is that of chance or lower, and no bad luck of a useful network.

    Few images cannot show it: a network half-way between chance and 1 must be unlikely to do so.
    """
    from scipy.stats import binom

    half_way = (1 + chance) / 2
    by_luck, by_chance = binom.cdf(hits, count, half_way), binom.sf(hits - 1, count, chance)
    return bool(by_luck < UNLIKELY and by_chance > RARE)


def is_gain(before: int, after: int, count: int, tried: int) -> bool:
    """Whether `after` hits of `count` are more than the best of `tried` guesses would reach."""
    from scipy.stats import binom

    return bool(binom.sf(after - 1, count, max(before, 1) / count) * tried < UNLIKELY)


def best_order(confusion: np.ndarray) -> tuple[list[int], int]:
    """Return which class each output stands for so that most images are right, and their number.

    Parameters
    ----------
    confusion : ndarray
        (c, c), int: numbers of images by label and prediction.
    """
    from scipy.optimize import linear_sum_assignment

    outputs, labels = linear_sum_assignment(confusion.T, maximize=True)
    return labels.tolist(), int(confusion[labels, outputs].sum())


def _chance(confusion: np.ndarray) -> float:
    """Return the accuracy of the same predictions if they had nothing to do with the labels."""
    total = confusion.sum()
    return float((confusion.sum(0) * confusion.sum(1)).sum() / total**2)


@torch.no_grad()
def confusion_of(network: nn.Module, images: Tensor, labels: Tensor, classes: int) -> np.ndarray:
    """Count images by label and prediction: (c, c), int."""
    found = torch.cat([network(part.clone()).argmax(1) for part in images.split(64)])
    return np.bincount((labels * classes + found).numpy(), minlength=classes**2).reshape(
        classes, classes
    )


def _alternatives(images: Tensor, spec: ClassifierSpec) -> Iterator[tuple[str, Tensor]]:
    """Yield settings, and images for which the network gets what they would give it."""
    present = Preprocessing.of(spec)
    channels = images.shape[1]
    plain = [Preprocessing(r) for r in ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))]
    for other in [*plain, *USUAL[channels]]:
        if other != present:
            yield str(other), present.undo(other.apply(images))
    if channels == 3:
        for other in [present, *plain, *USUAL[3]]:
            swapped = images.flip(1)
            yield f"{other}{BGR}", present.undo(other.apply(swapped))


def _renamed(class_names: Sequence[str], order: list[int], spec: ClassifierSpec) -> list[str]:
    """Return `class_names` for the entry, given the class that each output stands for."""
    stands_for = {name: class_names[k] for name, k in zip(class_names, order, strict=True)}
    return [stands_for.get(name, name) for name in spec.class_names or class_names]
