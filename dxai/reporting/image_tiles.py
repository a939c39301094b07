"""Single pictures: images, parts and heatmaps as 8-bit RGB, and as small files.

Images are (C, H, W), C = 1 or 3, in [-1, 1]; pictures are (H, W, 3) uint8.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

POSITIVE = np.array([213, 94, 0], dtype=np.float64)
NEGATIVE = np.array([0, 114, 178], dtype=np.float64)
"""Vermillion and blue, which colour-blind readers can tell apart."""
LOSSLESS = 48
"""Largest side in pixels of a picture that keeps its size."""


def picture(image: np.ndarray) -> np.ndarray:
    """Convert an image, clipped to its range."""
    return _rgb((np.asarray(image, dtype=np.float64) + 1) * 127.5)


def signed(part: np.ndarray, scale: float) -> np.ndarray:
    """Show a signed part around mid-gray: 0 is 128, -scale is black, +scale is white."""
    return _rgb(128 + 127 * np.asarray(part, dtype=np.float64) / scale)


def scale_of(part: np.ndarray) -> float:
    """Return the largest absolute value, the `scale` that clips nothing; 1 if all are zero."""
    return float(np.abs(part).max()) or 1.0


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Show a weight in [-1, 1] over the gray image: positive in vermillion, negative in blue."""
    gray = (np.asarray(image, dtype=np.float64).mean(0) + 1)[..., None] * 127.5
    heat = np.asarray(heat, dtype=np.float64).mean(0)[..., None]
    colour = np.where(heat > 0, POSITIVE, NEGATIVE)
    opacity = 0.85 * np.abs(heat)
    return _bytes((1 - opacity) * gray + opacity * colour)


def magnitude(values: np.ndarray, scale: float) -> np.ndarray:
    """Show the mean over channels of values (C, H, W) >= 0: 0 is black, `scale` is white."""
    shown = 255 * np.asarray(values, dtype=np.float64).mean(0, keepdims=True) / scale
    return _rgb(np.repeat(shown, 3, axis=0))


def encoded(pixels: np.ndarray, largest: int = 96) -> bytes:
    """Encode a picture: PNG up to 48 pixels, above that reduced to `largest`, as WebP."""
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if max(image.size) <= LOSSLESS:
        gray = (pixels == pixels[..., :1]).all()
        (image.convert("L") if gray else image).save(buffer, "PNG", optimize=True)
    else:
        image.thumbnail((largest, largest))
        image.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def _rgb(values: np.ndarray) -> np.ndarray:
    """Convert (C, H, W) in [0, 255] to (H, W, 3) uint8."""
    return _bytes(np.broadcast_to(values.transpose(1, 2, 0), (*values.shape[1:], 3)))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
