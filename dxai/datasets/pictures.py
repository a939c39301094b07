"""Images that a user has in hand, as 8-bit pictures: paths, Pillow images, arrays and tensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dxai.datasets.base import DataError
from dxai.datasets.images import EXTENSIONS, from_pillow, open_image
from dxai.datasets.source import is_hidden

NEAR = 1e-3
"""How far values may lie outside of their range, by rounding."""

Range = tuple[float, float]


def picture(value: Any, channels: int, value_range: Range | None = None, name: str = "") -> Any:
    """Return an image as an upright Pillow image of mode L (1 channel) or RGB (3).

    Parameters
    ----------
    value
        A path, a Pillow image, or an array or tensor: (H, W), (H, W, C) or (C, H, W), uint8 or
        floating-point.
    channels : {1, 3}
        Gray images become RGB, and RGB ones luma, where they have to.
    value_range : (float, float), optional
        Of floating-point values; default: [0, 1], or [-1, 1] if one is below 0.
    name : str
        The image's name in errors.

    Raises
    ------
    DataError
        If it is unreadable, no image, or its values lie outside of the range.
    """
    if isinstance(value, str | Path):
        try:
            data = Path(value).read_bytes()
        except OSError as error:
            raise DataError(f"{value}: unreadable image ({error.strerror or error})") from error
        return open_image(data, value, channels)
    name = name or "image"
    if isinstance(value, Image.Image):
        return from_pillow(value, name, channels)
    pixels = as_array(value, name)
    if pixels.dtype != np.uint8:
        pixels = to_8_bits(pixels, value_range or range_of(pixels), name)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return from_pillow(Image.fromarray(np.ascontiguousarray(pixels)), name, channels)


def image_files(paths: Iterable[str]) -> list[str]:
    """Return files as they are and, for each folder, the images at any depth below it, sorted.

    Raises `DataError` for a folder without images.
    """
    found: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            found.append(path)
            continue
        below = (file.relative_to(path) for file in Path(path).rglob("*"))
        names = [f.as_posix() for f in below if f.suffix.lower() in EXTENSIONS]
        inside = sorted(str(Path(path, name)) for name in names if not is_hidden(name))
        if not inside:
            raise DataError(
                f"{path}: no images ({', '.join(sorted(EXTENSIONS))}) below this folder"
            )
        found += inside
    return found


def as_array(value: Any, name: str) -> np.ndarray:
    """Return an array or tensor as an array (H, W) or (H, W, C), uint8 or floating-point."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise DataError(
            f"{name}: found {type(value).__name__}; expected a path, a Pillow image, an array or "
            "a tensor"
        )
    if value.dtype != np.uint8 and not np.issubdtype(value.dtype, np.floating):
        raise DataError(f"{name}: found {value.dtype}; expected uint8 or floating-point values")
    if value.ndim == 3 and value.shape[0] in (1, 3) and value.shape[2] not in (1, 3, 4):
        value = value.transpose(1, 2, 0)
    if value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[2] not in (1, 3, 4)):
        raise DataError(
            f"{name}: found shape {value.shape}; expected (H, W), (H, W, C) or (C, H, W) with 1 or "
            "3 channels"
        )
    if not value.size:
        raise DataError(f"{name}: found shape {value.shape}; it holds no pixel")
    return value


def range_of(pixels: np.ndarray) -> Range:
    """Return the range that floating-point values are taken to have: [0, 1] or [-1, 1]."""
    return (-1.0, 1.0) if float(pixels.min()) < -NEAR else (0.0, 1.0)


def to_8_bits(pixels: np.ndarray, value_range: Range, name: str) -> np.ndarray:
    """Scale floating-point values of a range to uint8."""
    low, high = value_range
    least, most = float(pixels.min()), float(pixels.max())
    if not (least >= low - NEAR and most <= high + NEAR):  # nor NaN
        raise DataError(
            f"{name}: values span [{least:.3g}, {most:.3g}]; expected [{low:g}, {high:g}], or uint8"
        )
    return ((pixels - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
