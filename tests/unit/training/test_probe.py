"""The leakage probe on images whose information about the class is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from dxai.training.probe import predict, spread_over_classes, train_probe

CLASSES, SIZE, TRAIN, TEST = 3, 16, 90, 60


def noise(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Return gray noise (N, 1, H, W), the same distribution for every class, and its labels."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randn((count, 1, SIZE, SIZE), generator=rng) / 10
    return images, torch.arange(count) % CLASSES


def told(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], epochs: int) -> int:
    """Return how many test images a probe tells."""
    probe = train_probe(*train, CLASSES, epochs, seed=0)
    return int((predict(probe, test[0]) == test[1].numpy()).sum())


def test_the_brightness_of_one_pixel_is_found() -> None:
    splits = noise(0, TRAIN), noise(1, TEST)
    for images, labels in splits:
        images[:, 0, 5, 9] = labels - 1.0
    assert told(*splits, epochs=20) == TEST


def test_images_without_a_class_leave_chance() -> None:
    hits = told(noise(0, TRAIN), noise(1, TEST), epochs=5)
    interval = binomtest(hits, TEST).proportion_ci(method="wilson")
    assert interval.low < 1 / CLASSES < interval.high


def test_equal_images_get_one_answer() -> None:
    """So each class is told as often as it is named: 1 / c over all classes."""
    train, test = noise(0, TRAIN), noise(1, TEST)
    blank = torch.zeros_like(train[0])
    assert told((blank, train[1]), (blank[:TEST], test[1]), epochs=1) == TEST // CLASSES


def test_it_depends_on_its_arguments_alone() -> None:
    images, labels = noise(0, 10)
    torch.manual_seed(1)
    first = train_probe(images, labels, CLASSES, 1, seed=0)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = train_probe(images, labels, CLASSES, 1, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    other = train_probe(images, labels, CLASSES, 1, seed=1)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first(images), other(images))


@pytest.mark.parametrize(
    ("images", "expected"),
    [(6, [0, 4, 9, 10, 11, 12]), (100, [*range(13)]), (1, [0, 10])],
)
def test_images_are_spread_over_classes_and_the_split(images: int, expected: list[int]) -> None:
    labels = np.repeat([0, 1], [10, 3])
    assert spread_over_classes(labels, images).tolist() == expected
