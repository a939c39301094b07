"""Decoding of image files into pixels, and encoding of pixels for shards."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from dxai.datasets.base import DataError
from dxai.datasets.content import describe, one_line

EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Suffixes (in lower case) of the files that count as images."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "MPO", "AVIF", "JPEG2000")
"""Formats, in Pillow's names, that the content may have, whatever the suffix. Pillow knows others,
among them PostScript, for which it starts a program that runs what the file says."""

JPEG_QUALITY = 95

LARGE, PIXELS_PER_BYTE = 178_956_970, 100
"""Above so many pixels (Pillow's own limit), an image with more of them per byte of its file is
taken for a decompression bomb; aerial photographs have at most ten."""

SIGNED = 2
"""Value of TIFF's tag SampleFormat."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the operation that turns the image upright."""


def read_image(path: Path | str, image_size: int, channels: int) -> np.ndarray:
    """Read an image file as a square 8-bit image.

    The EXIF orientation is applied, even beside damaged tags, transparent pixels are laid over
    black, the first frame or page is taken, and 16-bit gray is scaled by its full range (65535
    becomes 255). Signed, 32-bit and floating-point pixels are refused. The largest
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
        raise DataError(f"{path}: unreadable image ({error.strerror or error})") from error
    return square(open_image(data, path, channels), image_size)


def open_image(data: bytes, name: Path | str, channels: int) -> Image.Image:
    """Decode the content of an image file, upright and in 8 bits, as `read_image` describes.

    `name` is the file's, for error messages.
    """
    mode = "L" if channels == 1 else "RGB"
    return _open(data, name, lambda image: _to_mode(image, mode))


def from_pillow(image: Image.Image, name: str, channels: int) -> Image.Image:
    """Bring an image that is open already into the form of `open_image`."""
    try:
        turn = TURNS.get(_orientation(image))
        converted = _to_mode(image, "L" if channels == 1 else "RGB")
    except (OSError, ValueError) as error:  # a lazy image is read here
        raise DataError(f"{name}: unreadable image ({one_line(error)})") from error
    return converted if turn is None else converted.transpose(turn)


def open_mask(data: bytes, name: Path | str) -> Image.Image:
    """Decode a mask, upright, into mode L: 255 inside, 0 outside, shares of 255 between.

    A mask of two values, 0 and any other (1, 255, True), is inside where it is not 0. One of more
    values, none of which reaches 128, raises `DataError`, since no pixel would count as inside.
    """
    return _open(data, name, _to_mask)


def square(image: Image.Image, size: int, is_mask: bool = False) -> np.ndarray:
    """Resize the largest centred square to `size` pixels; a mask gives the covered share."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return resize(np.asarray(image)[top : top + side, left : left + side], size, is_mask)


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
    """Decode the uint8 image, (H, W) or (H, W, 3), that `encode` took; or raise `DataError`."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            return np.asarray(image)
    except Exception as error:  # decoders raise almost anything for damaged bytes
        raise DataError(f"damaged image ({_what(error, data)})") from error


def _open(
    data: bytes, name: Path | str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Decode an image file, `convert` it, and turn it upright; any failure is a `DataError`."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd tags, and above half its limit
            Image.MAX_IMAGE_PIXELS = None  # `_check_size` knows the size of the file, too
            with Image.open(io.BytesIO(data), formats=_formats()) as file:
                _check_size(file.width, file.height, len(data))
                file.load()
                image, turn = convert(file), TURNS.get(_orientation(file))
            return image if turn is None else image.transpose(turn)
    except Exception as error:  # decoders raise almost anything for damaged bytes
        found = _what(error, data)
        raise DataError(f"{name}: unreadable image ({found}); replace it or take it out") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@functools.cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _what(error: Exception, data: bytes) -> str:
    """Say what is wrong with the content of an image file."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is {describe(data)}"
    return one_line(error)


def _check_size(width: int, height: int, size: int) -> None:
    if width * height > max(LARGE, PIXELS_PER_BYTE * size):
        raise ValueError(
            f"{width}x{height} pixels in {size} bytes, which looks like a decompression bomb"
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1, upright, if it is missing or cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged block of tags does not make the picture unusable
        return 1


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F" or tags.get(SAMPLEFORMAT, (1,))[0] == SIGNED:
        kind = "floating-point" if image.mode == "F" else "signed"
        raise ValueError(f"{kind} pixels have no defined range; take unsigned 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _from_16_bit(image, tags)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image if image.mode == mode else image.convert(mode)


def _from_16_bit(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Scale a gray image to 8 bits by the full range of its file's 16, or TIFF's 12, bits.

    Pillow holds 16 bits as `I;16` or, like 32 bits, as `I`; only the file tells them apart.
    """
    bits = 16 if image.mode != "I" or image.format in ("PNG", "PPM") else 32
    bits = int(tags.get(BITSPERSAMPLE, (bits,))[0])
    if bits > 16:
        raise ValueError(f"{bits}-bit pixels have no defined range; take unsigned 8 or 16 bits")
    values, full = np.asarray(image).astype(np.int32), 2**bits - 1
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:  # 0 is white; Pillow inverts 8 bits only
        values = full - values
    if isinstance(clear := image.info.get("transparency"), int):
        values = np.where(values == clear, 0, values)
    return Image.fromarray(((values * 255 + full // 2) // full).astype(np.uint8))


def _to_mask(image: Image.Image) -> Image.Image:
    is_plain = image.mode == "1" or image.mode.startswith("I")
    values = np.asarray(image if is_plain else _to_mode(image, "L"))
    inside = values != 0
    if len(np.unique(values[inside])) < 2:
        return Image.fromarray(255 * inside.astype(np.uint8))
    gray = np.asarray(_to_mode(image, "L"))
    if gray.max() < 128:
        raise ValueError(
            f"a mask whose largest value is {gray.max()} of 255, so that no pixel counts as "
            "inside; expected 0 and 255, or 0 and 1"
        )
    return Image.fromarray(gray)
