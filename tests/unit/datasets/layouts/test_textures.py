from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import skimage.data

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError
from dxai.datasets.base import Listing, Sample
from dxai.datasets.layouts.textures import PHOTOGRAPHS, find
from tests.listings import no_files, samples_of


def listing(image_size: int = 32, channels: int = 1, **options: object) -> Listing:
    dataset = DatasetParams(
        layout="textures", source="data/textures.md", channels=channels, options=options
    )
    return find(None, dataset, PrepareParams(image_size=image_size))


def samples(image_size: int = 32, channels: int = 1, **options: object) -> list[Sample]:
    return list(samples_of(listing(image_size, channels, **options), no_files))


def box(sample: Sample) -> tuple[str, slice, slice]:
    """Photograph and box, as `source` tells a human."""
    match = re.fullmatch(r"(\w+)\.png rows (\d+)-(\d+), columns (\d+)-(\d+)", sample.source)
    assert match is not None
    top, bottom, left, right = (int(number) for number in match.groups()[1:])
    return match[1], slice(top, bottom + 1), slice(left, right + 1)


@pytest.fixture(scope="module")
def defaults() -> list[Sample]:
    return samples()


def test_counts_of_the_defaults(defaults: list[Sample]) -> None:
    """64 blocks a photograph, 13 of them for test, 13 for validation, 4 patches in each; 25 in a
    training block."""
    counts = Counter((sample.split, sample.label) for sample in defaults)
    for name in PHOTOGRAPHS:
        assert counts["test", name] == counts["validation", name] == 13 * 4
        assert counts["train", name] == 38 * 25
    assert len(listing().units) == 3 * 64


def test_pixels_are_those_that_the_source_names(defaults: list[Sample]) -> None:
    for sample in defaults[::37]:
        name, rows, columns = box(sample)
        assert name == sample.label
        photograph = getattr(skimage.data, name)()
        np.testing.assert_array_equal(sample.image, photograph[rows, columns])


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (32, {}),
        (64, {"block": 128}),
        (32, {"block": 100, "stride": 5}),
        (32, {"block": 256}),
        (32, {"stride": 33}),
    ],
)
def test_splits_share_no_pixel(size: int, options: dict[str, int]) -> None:
    masks = {
        (name, split): np.zeros((512, 512), dtype=int)
        for name in PHOTOGRAPHS
        for split in ("train", "validation", "test")
    }
    for sample in samples(size, **options):
        name, rows, columns = box(sample)
        masks[name, sample.split][rows, columns] += 1
        assert sample.image.shape == (size, size)
    for name in PHOTOGRAPHS:
        train, validation, test = (masks[name, s] for s in ("train", "validation", "test"))
        assert min(train.max(), validation.max(), test.max()) > 0
        assert not ((train > 0) & (validation > 0)).any()
        assert not ((train > 0) & (test > 0)).any()
        assert not ((validation > 0) & (test > 0)).any()
        assert test.max() == validation.max() == 1, "test and validation patches do not overlap"


def test_a_group_is_one_block_in_one_split(defaults: list[Sample]) -> None:
    splits: dict[str, set[str]] = {}
    for sample in defaults:
        name, rows, columns = box(sample)
        assert sample.group == f"{name}/block-{rows.start // 64}-{columns.start // 64}"
        splits.setdefault(sample.group, set()).add(sample.split)
    assert len(splits) == 3 * 64
    assert all(len(found) == 1 for found in splits.values())


def assignment(**options: object) -> dict[str, str]:
    return {unit.group: unit.split for unit in listing(64, **options).units}


def test_assignment_follows_the_seed() -> None:
    assert assignment(seed=1) == assignment(seed=1)
    assert assignment(seed=1) != assignment(seed=2)


def test_photographs_are_assigned_independently() -> None:
    splits = assignment()
    blocks = {
        name: {group.removeprefix(name): s for group, s in splits.items() if group.startswith(name)}
        for name in PHOTOGRAPHS
    }
    assert blocks["brick"] != blocks["grass"] != blocks["gravel"]


@pytest.mark.parametrize("share", [0.01, 0.49])
def test_every_split_gets_a_block(share: float) -> None:
    splits = assignment(block=256, validation=share, test=share)
    for name in PHOTOGRAPHS:
        found = {split for group, split in splits.items() if group.startswith(name)}
        assert found == {"train", "validation", "test"}


def test_colour_channels_repeat_the_gray(defaults: list[Sample]) -> None:
    sample = next(samples_of(listing(channels=3), no_files))
    assert sample.image.shape == (32, 32, 3)
    for channel in range(3):
        np.testing.assert_array_equal(sample.image[..., channel], defaults[0].image)


def test_test_images_come_first(defaults: list[Sample]) -> None:
    order = [sample.split for sample in defaults]
    assert order == sorted(order, key=("test", "validation", "train").index)


def test_image_larger_than_a_block_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"image_size 128 does not fit a block of 64"):
        listing(128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blok": 64}, "unknown 'blok'; valid are block, seed, stride, test, validation"),
        ({"block": "64"}, "options.block is '64'"),
        ({"block": 0}, "block is 0"),
        ({"block": 300}, "three splits need 3"),
        ({"block": 600}, "less than or equal to 512"),
        ({"stride": 0}, "stride is 0"),
        ({"test": 0}, "greater than 0"),
        ({"validation": 0.6, "test": 0.4}, "must be below 1"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        listing(16, **options)
