"""The brain and the tumour of volumes in other units than those of the challenge."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from dxai.datasets.layouts.volumes import find_brain, find_tumour, read_volume

SHAPE = (40, 44, 20)


def inside() -> np.ndarray:
    """An ellipsoid, whose box has background in its corners."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return sum((axis / 0.85) ** 2 for axis in axes) < 1


def brain() -> np.ndarray:
    """Whole numbers, 20 to 420 in the brain, 0 around it."""
    x = np.arange(SHAPE[0])[:, None, None]
    noise = np.random.default_rng(0).integers(0, 20, SHAPE)
    return np.where(inside(), 20 + 10 * x + noise, 0).astype(np.float32)


def z_scored(values: np.ndarray) -> np.ndarray:
    part = values[values > 0]
    return np.where(values > 0, (values - part.mean()) / part.std(), 0)


def z_scored_whole(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def offset(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, 0.001, values)


def below(values: np.ndarray) -> np.ndarray:
    return values - 1024


def bright_background(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, 5000, values)


def jitter(values: np.ndarray) -> np.ndarray:
    """A background of a thousandth, but for rounding."""
    return np.where(values == 0, 0.001 + np.random.default_rng(1).normal(0, 1e-7, SHAPE), values)


def noise(values: np.ndarray) -> np.ndarray:
    return values + np.random.default_rng(1).normal(0, 1.5, SHAPE)


def clipped_noise(values: np.ndarray) -> np.ndarray:
    return noise(values).clip(0, None)


def percent(values: np.ndarray) -> np.ndarray:
    return values / 42000


@pytest.mark.parametrize(
    "change",
    [
        z_scored,
        z_scored_whole,
        offset,
        below,
        bright_background,
        jitter,
        noise,
        clipped_noise,
        percent,
        np.negative,
    ],
)
def test_the_brain_in_other_units(change: Callable[[np.ndarray], np.ndarray]) -> None:
    found = find_brain(change(brain()).astype(np.float32))
    assert (found != inside()).mean() < 1e-3


def test_ripples_around_the_brain_are_background() -> None:
    """Of a volume shifted by half a voxel in each direction, by a spline."""
    values = ndimage.shift(brain(), (0.5, 0.5, 0.5), order=3).astype(np.float32)
    assert (values != 0).mean() > 0.9, "ripples everywhere"
    found = find_brain(values)
    far = ndimage.distance_transform_edt(~inside()) > 4.5
    assert not found[far].any() and (values[far] != 0).mean() > 0.7
    assert found[ndimage.binary_erosion(inside(), iterations=2)].all()


def test_background_of_0_is_exact_however_dark_the_brain() -> None:
    """Where no voxel is below 0 and some are 0, every other voxel is brain, as in the challenge."""
    values = brain()
    values[10:12, 10:12] = 0  # a hole
    values[20:22, 20:22, 10] = 1e-6
    np.testing.assert_array_equal(find_brain(values), values > 0)
    values = np.where(inside(), 0, brain() + np.arange(SHAPE[2]) + 100)  # none in the corners
    np.testing.assert_array_equal(find_brain(values), values > 0)


@pytest.mark.parametrize("deviation", [50.0, 200.0])
def test_a_head_in_noise_has_no_background(deviation: float) -> None:
    values = brain() + np.random.default_rng(1).normal(0, deviation, SHAPE).astype(np.float32)
    with pytest.raises(ValueError, match=r"no background: the volume's corners go from -\d+"):
        find_brain(values)


def test_a_small_brain_in_noise_has_no_background() -> None:
    """So few voxels that the noise counts as bright."""
    values = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
    values[18:22, 18:22, 8:12] = 500
    with pytest.raises(ValueError, match="no background"):
        find_brain(values)


@pytest.mark.parametrize("background", [-100.0, 50.0, 5000.0])
def test_two_backgrounds_are_told(background: float) -> None:
    """That of the volume, and the zeros that fill the corners of a turned one."""
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    corner = np.broadcast_to(((x + y) % 77 < 14)[..., None], SHAPE)
    values = np.where(inside(), brain(), np.where(corner, 0, background)).astype(np.float32)
    told = f"most voxels are 0 or {background:g};|corners go from {background:g} to 0;"
    with pytest.raises(ValueError, match=told):
        find_brain(values)


# -------------------------------------------------------------------------------------- labels


def tumour() -> np.ndarray:
    labels = np.zeros(SHAPE, np.float32)
    labels[12:26, 12:26, 8:13] = 2
    labels[15:22, 15:22, 9:12] = 4
    labels[17:20, 17:20, 10] = 1
    return labels


@pytest.mark.parametrize("largest", [1, 2, 3, 4])
@pytest.mark.parametrize("order", [1, 3, 5])
def test_interpolated_labels(order: int, largest: int) -> None:
    """Enlarged twofold and reduced again: the same slices, and no ripple."""
    labels = np.minimum(tumour(), largest)
    fine = np.kron(labels, np.ones((2, 2, 2), np.float32))
    values = ndimage.zoom(fine, 0.5, order=order)
    assert order == 1 or (values > 0).sum() > 1.5 * (labels > 0).sum(), "it has ripples"
    found = find_tumour(values)
    assert set(np.flatnonzero(found.any((0, 1)))) == set(range(8, 13))
    assert (found != (labels > 0)).sum() < 0.2 * (labels > 0).sum()


@pytest.mark.parametrize("scale", [1, 50, 255, 0.996])
def test_whole_numbers_are_labels(scale: float) -> None:
    np.testing.assert_array_equal(find_tumour(tumour() * np.float32(scale)), tumour() > 0)


def test_no_tumour() -> None:
    assert not find_tumour(np.zeros(SHAPE, np.float32)).any()


# --------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("form", ["trailing axis", "named .nii", "big endian"])
def test_forms_of_a_file(form: str) -> None:
    values = brain().astype(np.int16)
    header = nibabel.Nifti1Header(endianness=">" if form == "big endian" else "<")
    stored = values[..., None] if form == "trailing axis" else values
    data = nibabel.Nifti1Image(stored, np.diag([-1.0, 1.0, 2.0, 1.0]), header).to_bytes()
    found, affine = read_volume(gzip.compress(data) if form == "named .nii" else data)
    np.testing.assert_array_equal(found, values[::-1])
    np.testing.assert_array_equal(np.diag(affine), [1, 1, 2, 1])


def test_damaged_files_give_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Headers and gzip streams with changed, lost and added bytes: read, or refused."""
    small = brain()[::5, ::5, ::4]
    whole = []
    for kind in ("i2", "f4", "u1", "f8"):
        image = nibabel.Nifti1Image(small.astype(kind), np.diag([1.0, -1.0, 2.0, 1.0]))
        image.header.set_slope_inter(0.5, 3)
        whole += [image.to_bytes(), gzip.compress(image.to_bytes(), 1)]
    refused = 0
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        data = bytearray(whole[rng.integers(len(whole))])
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(min(len(data), 360)))
            if (kind := rng.integers(4)) < 2:
                data[at : at + 2] = rng.bytes(int(kind) + 1)
            elif kind == 2:
                del data[at : at + int(rng.integers(1, 9))]
            else:
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        try:
            values, _ = read_volume(bytes(data))
            find_brain(values)
            find_tumour(values)
        except ValueError as error:
            refused += 1
            assert str(error).isprintable()
    assert refused > 500
    assert capfd.readouterr().err == ""  # a remark of nibabel would name no file
