"""Shapes, backgrounds and file output for the samples.

A canvas is float32 in [0, 1], (height, width, 3) or (height, width). Shapes are masks in [0, 1]:
the signed distance to the outline, clipped to one pixel for anti-aliasing. Points and sizes are
(x, y) in pixels, angles in radians.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

Point = tuple[float, float]
Colour = Sequence[float] | np.ndarray


def grid(size: tuple[int, int]) -> np.ndarray:
    """Pixel centres of an image of (width, height): (2, height, width), x first."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32) + np.float32(0.5)
    return np.stack([x, y])


def around(at: np.ndarray, centre: Point, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the square window around a point, in which small shapes cost little."""
    x, y = centre[0] - at[0, 0, 0], centre[1] - at[1, 0, 0]
    rows = slice(max(0, int(y - reach)), max(0, int(y + reach) + 2))
    return rows, slice(max(0, int(x - reach)), max(0, int(x + reach) + 2))


def ellipse(at: np.ndarray, centre: Point, radii: Point, angle: float = 0.0) -> np.ndarray:
    """A filled ellipse."""
    u, v = _turn(at, centre, angle)
    return _cover((1 - np.hypot(u / radii[0], v / radii[1])) * min(radii))


def box(
    at: np.ndarray, centre: Point, size: Point, angle: float = 0.0, corner: float = 0.0
) -> np.ndarray:
    """A filled box of (length, width), with corners rounded to a radius."""
    u, v = _turn(at, centre, angle)
    u, v = abs(u) - size[0] / 2 + corner, abs(v) - size[1] / 2 + corner
    outside = np.hypot(np.maximum(u, 0), np.maximum(v, 0))
    return _cover(corner - outside - np.minimum(np.maximum(u, v), 0))


def polygon(at: np.ndarray, corners: Sequence[Point]) -> np.ndarray:
    """A filled convex polygon, its corners clockwise on the screen."""
    points = np.asarray(corners, dtype=np.float32)
    inside = np.full(at.shape[1:], np.inf, dtype=np.float32)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        normal = np.array([y0 - y1, x1 - x0]) / np.hypot(x1 - x0, y1 - y0)
        inside = np.minimum(inside, normal[0] * (at[0] - x0) + normal[1] * (at[1] - y0))
    return _cover(inside)


def corners(centre: Point, size: Point, angle: float) -> np.ndarray:
    """The four corners of a box as (4, 2)."""
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * size
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return unit @ turn + centre


def paint(canvas: np.ndarray, mask: np.ndarray, colour: Colour | float) -> None:
    """Lay a colour over a canvas, or over a view of it, in place."""
    if canvas.ndim == 3:
        mask = mask[..., None]
    canvas += mask * (np.asarray(colour, dtype=np.float32) - canvas)


def stamp(
    canvas: np.ndarray,
    at: np.ndarray,
    centre: Point,
    size: Point,
    angle: float,
    colour: Colour,
    corner: float = 0.0,
) -> None:
    """Paint a box, computing only its own window of the canvas."""
    near = around(at, centre, np.hypot(*size) / 2 + 1)
    paint(canvas[near], box(at[:, *near], centre, size, angle, corner), colour)


def noise(rng: np.random.Generator, size: tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise, about N(0, 1), whose blobs are `cell` pixels wide; (height, width)."""
    coarse = rng.standard_normal((size[1] // cell + 2, size[0] // cell + 2)).astype(np.float32)
    whole = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(whole)


def backdrop(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A soft gradient between two muted colours, (height, width, 3)."""
    colours = rng.uniform(0.4, 0.7, (2, 1)) + rng.uniform(-0.1, 0.1, (2, 3))
    first, second = colours.astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = grid(size) / max(size) - np.float32(0.5)
    t = np.clip(0.5 + np.cos(angle) * x + np.sin(angle) * y, 0, 1)[..., None]
    return first + t * (second - first) + 0.03 * noise(rng, size, max(size) // 4)[..., None]


def blur(canvas: np.ndarray, radius: float) -> np.ndarray:
    """Blur the canvas by a Gaussian whose deviation is `radius` pixels."""
    soft = Image.fromarray(to_pixels(canvas)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(soft, dtype=np.float32) / 255


def to_pixels(canvas: np.ndarray) -> np.ndarray:
    """Convert the canvas to uint8."""
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def save(path: Path, canvas: np.ndarray) -> None:
    """Write PNG or, nearly without loss, JPEG; equal canvases give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(to_pixels(canvas))
    if path.suffix == ".png":
        image.save(path, compress_level=4)
    else:
        image.save(path, quality=95, subsampling=0)


def save_truth(folder: Path, kind: str, path: Path, canvas: np.ndarray) -> None:
    """Write ground truth of the image at `path` to `truth/<kind>/`, at the same relative path."""
    save((folder / "truth" / kind / path.relative_to(folder)).with_suffix(".png"), canvas)


def _turn(at: np.ndarray, centre: Point, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction, from a centre."""
    x, y = at[0] - np.float32(centre[0]), at[1] - np.float32(centre[1])
    if angle == 0:
        return x, y
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _cover(distance: np.ndarray) -> np.ndarray:
    """Covered share of each pixel, from its distance to the outline."""
    return np.clip(distance + np.float32(0.5), 0, 1).astype(np.float32)
