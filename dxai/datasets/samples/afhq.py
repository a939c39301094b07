"""Sample of AFHQ: drawn animal heads that differ only by ears, spots and tongue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dxai.datasets.samples.drawing import (
    Colour,
    Point,
    backdrop,
    ellipse,
    grid,
    noise,
    paint,
    polygon,
    save,
    save_truth,
)
from dxai.utils import keyed_random

CLASSES = ("cat", "dog", "wild")
COUNTS = {"train": 350, "val": 80}
"""Images of each class; `val` is AFHQ's name for the test set."""

SIDE = 128
FURS = ((0.8, 0.62, 0.42), (0.72, 0.7, 0.68), (0.86, 0.78, 0.66), (0.7, 0.55, 0.45))
DARK = (0.1, 0.06, 0.05)

Parts = list[tuple[np.ndarray, Colour]]
"""Masks and their colours, in painting order."""


def render_sample(folder: Path, options: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Write `train/cat/cat_00001.jpg` .. and `val/..`, and `truth/mask/..`

    Background, fur, position and size of the head, eyes, nose and muzzle are drawn alike for all
    classes. A cat has pointed black ears, a dog hanging brown ears and its tongue out, a wild
    animal round white ears and spots: the mask holds these. All classes have their ears at the
    same position, so that the mask also covers the absence of another class's ears.
    """
    at = grid((SIDE, SIDE))
    i = 0
    for split, count in COUNTS.items():
        for label in CLASSES:
            for k in range(count):
                canvas, mask = _animal(
                    keyed_random.generator(seed, "samples/afhq", 0, i), at, label
                )
                path = folder / split / label / f"{label}_{k + 1:05d}.jpg"
                save(path, canvas)
                save_truth(folder, "mask", path, mask)
                i += 1


def _animal(rng: np.random.Generator, at: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw a head, and a mask of the pixels that only its class has."""
    canvas = backdrop(rng, (SIDE, SIDE))
    x, y = SIDE / 2 + rng.uniform(-6, 6), 72 + rng.uniform(-6, 6)
    r = rng.uniform(33, 39)
    fur = np.array(FURS[rng.integers(len(FURS))]) * rng.uniform(0.9, 1.1)
    paint(canvas, ellipse(at, (x, y + 1.5 * r), (0.8 * r, 0.8 * r)), 0.85 * fur)
    head = ellipse(at, (x, y), (r, 0.92 * r))
    paint(canvas, head, fur)
    canvas += 0.03 * (head * noise(rng, (SIDE, SIDE), 8))[..., None]
    for side in (-1, 1):
        paint(canvas, ellipse(at, (x + side * 0.4 * r, y - 0.1 * r), (0.15 * r, 0.17 * r)), 0.95)
        paint(canvas, ellipse(at, (x + side * 0.38 * r, y - 0.08 * r), (0.1 * r, 0.13 * r)), DARK)
    paint(canvas, ellipse(at, (x, y + 0.42 * r), (0.38 * r, 0.3 * r)), 0.5 * fur + 0.48)
    paint(canvas, ellipse(at, (x, y + 0.27 * r), (0.13 * r, 0.09 * r)), DARK)
    mask = np.zeros((SIDE, SIDE), dtype=np.float32)
    for part, colour in {"cat": _cat, "dog": _dog, "wild": _wild}[label](at, (x, y), r):
        paint(canvas, part, colour)
        paint(mask, part, 1.0)
    return canvas, mask


def _cat(at: np.ndarray, centre: Point, r: float) -> Parts:
    """Pointed ears."""
    x, y = centre
    parts: Parts = []
    for side in (-1, 1):
        for scale, colour in ((1.0, DARK), (0.5, (0.95, 0.6, 0.62))):
            tip, inner, outer = (0.78, -1.45), (0.2, -0.85), (0.95, -0.35)
            middle = np.mean((tip, inner, outer), axis=0)
            ring = [middle + scale * (np.array(p) - middle) for p in (tip, outer, inner)][::side]
            parts.append((polygon(at, [(x + side * u * r, y + v * r) for u, v in ring]), colour))
    return parts


def _dog(at: np.ndarray, centre: Point, r: float) -> Parts:
    """Hanging ears and a tongue."""
    x, y = centre
    parts: Parts = []
    for side in (-1, 1):
        middle = x + side * 0.86 * r, y - 0.55 * r
        parts.append((ellipse(at, middle, (0.26 * r, 0.56 * r), side * -0.6), (0.5, 0.1, 0.04)))
    return [*parts, (ellipse(at, (x, y + 0.75 * r), (0.14 * r, 0.22 * r)), (0.95, 0.2, 0.3))]


def _wild(at: np.ndarray, centre: Point, r: float) -> Parts:
    """Round ears, and spots on forehead and cheeks."""
    x, y = centre
    parts: Parts = [
        (ellipse(at, (x + side * 0.68 * r, y - 0.82 * r), (0.28 * r, 0.28 * r)), (0.99, 0.97, 0.93))
        for side in (-1, 1)
    ]
    spots = ((0.0, -0.7), (0.27, -0.5), (-0.27, -0.5), (0.65, 0.3), (-0.65, 0.3))
    parts += [(ellipse(at, (x + u * r, y + v * r), (0.1 * r, 0.1 * r)), DARK) for u, v in spots]
    return parts
