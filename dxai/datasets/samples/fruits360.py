"""Sample of Fruits-360: drawn fruit on white, whose class is a colour added to all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dxai.datasets.samples.drawing import ellipse, grid, noise, paint, save, save_truth
from dxai.utils import keyed_random

SIDE = 100
COUNTS = {"Pepper": (160, 40), "Tomato": (110, 25), "Apple": (110, 20)}
"""Training and test images per class of a set."""

COLOURS = {
    "Pepper Green": (135, -0.08),
    "Pepper Orange": (28, 0.1),
    "Pepper Red": (350, -0.12),
    "Pepper Yellow": (70, 0.1),
    "Tomato 1": (0, 0.1),
    "Tomato 2": (40, -0.1),
    "Tomato 3": (80, 0.1),
    "Tomato 4": (200, -0.1),
    "Tomato Cherry Red": (320, 0.1),
    "Tomato Heart": (280, -0.1),
    "Tomato Maroon": (0, -0.1),
    "Tomato Yellow": (40, 0.1),
    "Tomato not Ripened": (120, -0.1),
    "Apple Braeburn": (0, 0.1),
    "Apple Crimson Snow": (320, -0.1),
    "Apple Golden 1": (55, 0.1),
    "Apple Golden 2": (55, -0.1),
    "Apple Golden 3": (90, 0.1),
    "Apple Granny Smith": (130, 0.1),
    "Apple Pink Lady": (320, 0.1),
    "Apple Red 1": (0, -0.1),
    "Apple Red 2": (270, 0.1),
    "Apple Red 3": (270, -0.1),
    "Apple Red Delicious": (200, -0.1),
    "Apple Red Yellow 1": (200, 0.1),
    "Apple Red Yellow 2": (130, -0.1),
}
"""Hue in degrees and lightness, distinguishable at any size."""


def render_sample(folder: Path, seed: int = 0, classes: Sequence[str] | None = None) -> None:
    """Write `Training/<class>/0_100.jpg` .. and `Test/<class>/..`, and `truth/neutral/..`

    All fruit of a set (peppers, tomatoes, apples) has the same distribution of shape, position,
    light and stalk. The class is a colour added to every pixel of the fruit; the neutral image has
    the mean colour of the set instead, which says nothing about the class.

    `classes` are the class folders to write, keys of `COLOURS`; default: all.
    """
    at = grid((SIDE, SIDE))
    for i, name in enumerate(COLOURS):
        if classes is not None and name not in classes:
            continue
        kind = name.split()[0]
        training, test = COUNTS[kind]
        for k in range(training + test):
            rng = keyed_random.generator(seed, "samples/fruits360", i, k)
            gray, inside = _fruit(rng, at, kind)
            split = "Training" if k < training else "Test"
            path = folder / split / name / f"{k if k < training else k - training}_100.jpg"
            save(path, gray + inside[..., None] * colour(name))
            save_truth(folder, "neutral", path, gray + inside[..., None] * mean_colour(kind))


def colour(name: str) -> np.ndarray:
    """Value that a class adds to each channel of a gray fruit."""
    hue, light = COLOURS[name]
    turns = np.deg2rad(hue - np.array([0, 120, 240]))
    return (0.28 * np.cos(turns) + light).astype(np.float32)


def mean_colour(kind: str) -> np.ndarray:
    """Mean colour of a set's classes, whose names start with `kind`."""
    return np.mean([colour(name) for name in COLOURS if name.split()[0] == kind], axis=0)


def _fruit(rng: np.random.Generator, at: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw a gray fruit on white, and its share of each pixel."""
    x, y = SIDE / 2 + rng.uniform(-3, 3, 2)
    r = rng.uniform(36, 41)
    angle = rng.uniform(-0.3, 0.3)
    if kind == "Pepper":  # three lobes
        inside = np.zeros(at.shape[1:], dtype=np.float32)
        for shift in (-0.42, 0.42, 0.0):
            lobe = x + shift * r * np.cos(angle), y + shift * r * np.sin(angle)
            inside = np.maximum(inside, ellipse(at, lobe, (0.52 * r, r), angle))
    else:
        flat = rng.uniform(0.8, 0.9) if kind == "Tomato" else rng.uniform(0.94, 1.0)
        inside = ellipse(at, (x, y), (r, flat * r), angle)
    light = np.array([x, y]) + r * rng.uniform(-0.5, 0.5, 2)
    away = np.hypot(at[0] - light[0], at[1] - light[1]) / r
    shade = 0.58 - 0.12 * np.clip(away, 0, 1.4) + 0.01 * noise(rng, (SIDE, SIDE), 12)
    shade = shade + 0.05 * np.exp(-((away / 0.2) ** 2))
    canvas = np.ones((SIDE, SIDE, 3), dtype=np.float32)
    paint(canvas, inside, shade[..., None])
    stalk = ellipse(at, (x, y - 0.72 * r), (0.09 * r, 0.16 * r), rng.uniform(-0.5, 0.5))
    paint(canvas, stalk, (0.32, 0.36, 0.26))
    return canvas, inside * (1 - stalk)
