"""The noise is what it is said to be: its deviation, its whiteness, and which images have it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError
from dxai.datasets.base import DataError, Dropped, Listing, Sample
from dxai.datasets.layouts.noise import find
from dxai.datasets.source import open_source
from tests.listings import samples_of

Tree = Callable[..., Path]


def listing(root: Path, size: int = 6, channels: int = 3, **options: object) -> Listing:
    dataset = DatasetParams(layout="noise", source=str(root), channels=channels, options=options)
    return find(open_source(str(root)), dataset, PrepareParams(image_size=size))


def samples(root: Path, **settings: object) -> list[Sample]:
    return list(samples_of(listing(root, **settings), open_source(str(root)).load))


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of mid-gray, far from where noise of 0.1 is clipped (5 deviations)."""
    root = tmp_path_factory.mktemp("gray")
    for i in range(40):
        Image.new("RGB", (160, 160), (126 + i % 4,) * 3).save(root / f"{i:02d}.png")
    return root


def noise_of(found: list[Sample]) -> np.ndarray:
    """Image minus neutral of the noisy ones."""
    pairs = [(s.image, s.neutral) for s in found if s.label == "noise"]
    return np.stack([image.astype(float) - neutral for image, neutral in pairs])


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("channels", [1, 3])
def test_deviation(gray: Path, sigma: float, channels: int) -> None:
    """Rounding to whole values adds 1/12 to the variance; 99.999% bounds of chi squared."""
    values = noise_of(samples(gray, size=160, channels=channels, sigma=sigma)).ravel()
    n = len(values)
    assert n == 20 * 160 * 160 * channels
    variance = (255 * sigma) ** 2 + 1 / 12
    low, high = scipy.stats.chi2.interval(0.99999, n) / np.array(n)
    assert low < (values**2).mean() / variance < high
    assert abs(values.mean()) < 4.5 * np.sqrt(variance / n)
    # Gaussian: the fourth moment is three times the square of the second.
    assert abs(scipy.stats.kurtosis(values)) < 4.5 * np.sqrt(24 / n)


def test_whiteness(gray: Path) -> None:
    """Neighbours, channels and images are not correlated: |r| < 4.5 / sqrt(n)."""
    values = noise_of(samples(gray, size=64))
    pairs = [
        (values[:, 1:], values[:, :-1]),
        (values[:, :, 1:], values[:, :, :-1]),
        (values[:, 1:, 1:], values[:, :-1, :-1]),
        (values[..., 0], values[..., 1]),
        (values[..., 1], values[..., 2]),
        (values[1:], values[:-1]),
    ]
    for one, other in pairs:
        r = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(r) < 4.5 / np.sqrt(one.size)


def test_neutral_is_the_clean_image(tree: Tree) -> None:
    root = tree({"a": 12, "b/c": 8})
    for sample in samples(root):
        with Image.open(root / sample.id) as image:
            np.testing.assert_array_equal(sample.neutral, np.asarray(image))
        same = np.array_equal(sample.image, sample.neutral)
        assert same == (sample.label == "clean")


def test_noise_is_clipped_to_the_range(tmp_path: Path) -> None:
    """On black half of it is lost, on white too: nothing wraps around."""
    for i in range(12):
        Image.new("L", (32, 32), 255 * (i % 2)).save(tmp_path / f"{i}.png")
    for sample in samples(tmp_path, size=32, channels=1):
        if sample.label == "noise":
            assert sample.neutral is not None
            level = int(sample.neutral[0, 0])
            assert abs(sample.image.astype(int) - level).max() < 6 * 25.5
            kept = (sample.image == level).mean()
            assert 0.4 < kept < 0.6


@pytest.mark.parametrize(("count", "test", "validation"), [(40, 0.2, 0.15), (37, 0.3, 0.1)])
def test_half_of_each_split_has_noise(
    tree: Tree, count: int, test: float, validation: float
) -> None:
    found = listing(tree({"x": count}), test=test, validation=validation)
    counts = Counter((unit.split, unit.label) for unit in found.units)
    sizes = Counter(unit.split for unit in found.units)
    assert abs(sizes["test"] - test * count) <= 0.5
    assert abs(sizes["validation"] - validation * count) <= 1
    for split, size in sizes.items():
        assert counts[split, "noise"] == size // 2
    assert len({unit.key for unit in found.units}) == count


def test_noise_follows_the_seed_and_is_new_for_each_image(tree: Tree) -> None:
    root = tree({"x": 30})
    first, again, other = ({s.id: s for s in samples(root, seed=seed)} for seed in (1, 1, 2))
    assert all(np.array_equal(first[key].image, again[key].image) for key in first)
    assert {k: s.split for k, s in first.items()} == {k: s.split for k, s in again.items()}
    assert {k: s.split for k, s in first.items()} != {k: s.split for k, s in other.items()}
    both = [k for k in first if first[k].label == other[k].label == "noise"]
    assert both
    assert not any(np.array_equal(first[k].image, other[k].image) for k in both)


def test_noise_does_not_depend_on_the_order_of_reading(gray: Path) -> None:
    found, load = listing(gray, 64), open_source(str(gray)).load
    for unit, sample in zip(reversed(found.units), reversed(samples(gray, size=64)), strict=True):
        (alone,) = found.read(unit, load)
        assert isinstance(alone, Sample)
        np.testing.assert_array_equal(alone.image, sample.image)


def test_different_images_of_the_same_pixels_get_different_noise(gray: Path) -> None:
    values = noise_of(samples(gray, size=64))
    assert len({row.tobytes() for row in values}) == len(values) == 20


def test_jpeg_would_change_the_noise(tree: Tree) -> None:
    root = tree({"x": 30})
    dataset = DatasetParams(
        layout="noise", source=str(root), channels=3, options={}, encoding="jpeg"
    )
    with pytest.raises(ParamsError, match="encoding: jpeg would change the noise"):
        find(open_source(str(root)), dataset, PrepareParams(image_size=6))


def test_truth_is_no_image_and_other_files_are_counted(tree: Tree) -> None:
    root = tree({"x": 30, "truth/mask/x": 3})
    (root / "notes.txt").write_text("")
    found = listing(root)
    assert len(found.units) == 30
    assert found.dropped == (Dropped("no image by its suffix", 1),)


def test_too_few_images(tree: Tree) -> None:
    with pytest.raises(DataError, match="5 images, too few for split"):
        listing(tree({"x": 5}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": 25.5}, "sigma is 25.5; it must be less than or equal to 1"),
        ({"test": 0.9, "validation": 0.1}, "must be below 1"),
        ({"std": 0.1}, "unknown 'std'; valid are seed, sigma, test, validation"),
    ],
)
def test_bad_options(tree: Tree, options: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError, match=re.escape(message)):
        listing(tree({"x": 30}), **options)
