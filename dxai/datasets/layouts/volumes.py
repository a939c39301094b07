"""Volumes of brain MRI from NIfTI files: voxels in a known orientation, the brain, its tumour."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import nibabel
import numpy as np

from dxai.datasets.content import describe

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.orientations.OrientationError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.wrapstruct.WrapStructError,
)
"""Errors that gzip and nibabel raise for damaged volumes."""

GZIP = b"\x1f\x8b"
LARGE = 1e30
"""Bound of the values, which leaves room to compute with float32."""
BRIGHT = 90
"""Percentile of the distances from the background that stands for the brightness of a brain."""
SAME, SLIGHT, CLEAR = 1e-4, 0.02, 0.1
"""Shares of that: to the first, values are equal; to the second, a voxel may be background; above
the third it is not."""
RIPPLES = 7.5
"""Largest value of an interpolated segmentation; a fifteenth of it is 0.5."""


def read_volume(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file, compressed or not.

    Returns
    -------
    values : ndarray
        float32, with its axes towards right, anterior and superior.
    affine : ndarray
        (4, 4), from the indices of a voxel to millimetres.

    Raises
    ------
    ValueError
        For a damaged file, or anything else than finite numbers on three axes.
    """
    try:
        with np.errstate(all="ignore"):  # its result is checked
            values, affine = _read(gzip.decompress(data) if data.startswith(GZIP) else data)
        if not (np.abs(values) < LARGE).all():
            raise ValueError(f"values that are not finite, or above {LARGE:g}")
        return values, affine
    except UNREADABLE as error:
        reason = str(error).encode("unicode_escape").decode()  # it may quote the file's bytes
        raise ValueError(f"unreadable volume ({reason})") from error


def _read(raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    volume = _open(raw)
    if len(volume.shape) > 3:
        volume = nibabel.squeeze_image(volume)
    if len(volume.shape) != 3:
        raise ValueError(f"{len(volume.shape)} dimensions, not 3")
    volume = nibabel.as_closest_canonical(volume)
    return np.asarray(volume.dataobj, np.float32), volume.affine


def _open(raw: bytes) -> Any:
    """Read a header, and check that it promises no more voxels than there are bytes."""
    try:
        with _quiet(nibabel.imageglobals.logger):  # its remarks on headers do not name the file
            volume: Any = nibabel.Nifti1Image.from_bytes(raw)
    except UNREADABLE as error:
        if raw[344:347] == b"n+1":
            raise
        raise ValueError(f"it is {describe(raw)}") from error
    dtype = volume.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ValueError(f"voxels of type {dtype}, not real numbers")
    if min(volume.shape) < 1:
        raise ValueError(f"no voxels, its size is {volume.shape}")
    promised = int(volume.dataobj.offset) + math.prod(volume.shape) * dtype.itemsize
    if len(raw) < promised:
        raise ValueError(f"{len(raw)} bytes, but its header promises {promised}")
    return volume


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def find_brain(values: np.ndarray) -> np.ndarray:
    """Mark the voxels of a skull-stripped volume that are not background.

    Background is 0 where no voxel is below 0 and at least one in a hundred is 0, else the median of
    the volume's corners. If that value is exact, all other voxels are brain, however close to it
    (so are those of a brain with mean 0). If a considerable part of the volume is only slightly
    off, as noise or the ripples of an interpolation are, that part is background too.

    Parameters
    ----------
    values : ndarray
        Intensities in any unit, of any sign, (R, A, S).

    Returns
    -------
    ndarray
        bool, (R, A, S).

    Raises
    ------
    ValueError
        If there is no brain, the corners show no background, or there are two.
    """
    corners = _corners(values)
    zeros = np.count_nonzero(values == 0)
    is_zero = values.min() == 0 and zeros >= values.size / 100
    background = np.float32(0) if is_zero else np.median(corners)
    distance = values if is_zero else np.abs(values - background)
    off = distance[distance > 0]
    if not off.size:
        raise ValueError(f"no brain: every voxel is {background:g}")
    bright = np.percentile(off, BRIGHT)
    spread = np.abs(corners - background)
    slight = max(SLIGHT * bright, spread[spread <= CLEAR * bright].max(initial=0))
    is_exact = np.count_nonzero(off <= slight) <= off.size / 5
    limit = 0 if is_exact else slight
    if not (is_zero and is_exact) and np.mean(spread > limit) > 0.01:
        raise ValueError(
            f"no background: the volume's corners go from {corners.min():g} to {corners.max():g}; "
            "strip the skull, and set all that is not brain to 0"
        )
    brain = distance > limit
    some = values[brain][::16]  # enough to tell, and fast
    other = np.median(some)
    if np.mean(np.abs(some - other) <= SAME * bright) > 0.5:
        raise ValueError(
            f"most voxels are {background:g} or {other:g}; set all that is not brain to 0, and "
            "check that the brain has more than one value"
        )
    return brain


def _corners(values: np.ndarray) -> np.ndarray:
    """Voxels of the eight corners, each a tenth of the volume's sides."""
    ends = []
    for length in values.shape:
        side = max(1, length // 10)
        ends.append((slice(side), slice(length - side, length)))
    return np.concatenate([values[corner].ravel() for corner in itertools.product(*ends)])


def find_tumour(labels: np.ndarray) -> np.ndarray:
    """Mark the voxels of a segmentation that have a label above 0.

    The limit is 0.5, because interpolation leaves values between the labels, and ripples of up to
    a fifteenth of a label around it.

    Raises
    ------
    ValueError
        For values that are no labels.
    """
    low, high = labels.min(), labels.max()
    some = labels[labels != 0]
    is_whole = np.allclose(some, np.rint(some), rtol=0, atol=0.01)
    values = f"values from {low:g} to {high:g}"
    if low <= (-1 if is_whole else -high / 3):
        raise ValueError(f"{values}; labels are 0 (no tumour) and above")
    if 0 < high <= 0.5:
        raise ValueError(f"{values}; labels are whole numbers, and tumour starts at 1")
    if not is_whole and high > RIPPLES:
        raise ValueError(
            f"{values}, not all of them whole, so ripples of an interpolation count as tumour; "
            "resample the original segmentation by nearest neighbour"
        )
    return labels > 0.5
