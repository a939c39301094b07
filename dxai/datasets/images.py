"""Decoding of image files into pixels, and encoding of pixels for shards."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dxai.datasets.base import DataError

EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes (in lower case) of the files that count as images."""

JPEG_QUALITY = 95

UNREADABLE = (
    OSError,  # truncated, unknown format, no such file, no permission
    SyntaxError,  # raised by Pillow for broken PNG chunks
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Errors that Pillow raises for damaged images."""


def read_image(path: Path | str, image_size: int, channels: int) -> np.ndarray:
    """Read an image file as a square 8-bit image.

    The EXIF orientation is applied, transparent pixels are laid over black, an animation gives its
    first frame, and 16-bit gray is scaled by its full range (65535 becomes 255). The largest
    centred square is then resized with a bicubic filter whose support grows with the reduction, so
    that a smaller image is not aliased.

    Parameters
    ----------
    path : path
        Any file that Pillow reads.
    image_size : int
        Side of the result, pixels.
    channels : {1, 3}
        1 gives luma (ITU-R 601-2), 3 gives RGB.

    Returns
    -------
    ndarray
        uint8, (image_size, image_size) or (image_size, image_size, 3).

    Raises
    ------
    DataError
        For a file that cannot be read whole, or values without a defined range.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: unreadable image ({error})") from error
    return square(open_image(data, path, channels), image_size)


def open_image(data: bytes, name: Path | str, channels: int) -> Image.Image:
    """Decode the content of an image file, upright and in 8 bits, as `read_image` describes.

    `name` is the file's, for error messages.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            ImageOps.exif_transpose(file, in_place=True)
            return _to_mode(file, "L" if channels == 1 else "RGB")
    except UNREADABLE as error:
        raise DataError(f"{name}: unreadable image ({error})") from error


def square(image: Image.Image, size: int, is_mask: bool = False) -> np.ndarray:
    """Resize the largest centred square to `size` pixels; a mask gives the covered share."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return resize(np.asarray(image), size, is_mask)


def resize(image: np.ndarray, size: int, is_mask: bool = False) -> np.ndarray:
    """Resize a square uint8 image; a mask gives the covered share."""
    if image.shape[0] == size:
        return image
    method = Image.Resampling.BOX if is_mask else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((size, size), method))


def encode(image: np.ndarray, encoding: str = "png", level: int = 6) -> bytes:
    """Encode a uint8 image as PNG of a compression level or as JPEG; equal pixels, equal bytes."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    if encoding == "jpeg":
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        picture.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def decode(data: bytes) -> np.ndarray:
    """Decode the uint8 image, (H, W) or (H, W, 3), that `encode` took."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("32-bit floating-point pixels have no defined range")
    if image.mode.startswith("I"):
        image = _from_16_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image if image.mode == mode else image.convert(mode)


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scale to 8 bits a 16-bit image, which Pillow holds as `I;16` or, from some formats, `I`."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit integer pixels have no defined range")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
