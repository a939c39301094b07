"""Sample of DOTA: drawn aerial images with boxes; cars are the only difference between patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dxai.datasets.samples.drawing import (
    Colour,
    Point,
    around,
    box,
    corners,
    ellipse,
    grid,
    noise,
    paint,
    save,
    stamp,
)
from dxai.utils import keyed_random

IMAGES, SIDE, PATCH = 120, 768, 256
CAR, TRUCK = (80.0, 36.0), (170.0, 54.0)
"""Length and width, pixels: in a patch at 32 px a car covers 10 x 4.5 pixels."""

PAINTS = ((0.97, 0.97, 0.98), (0.95, 0.08, 0.06), (1.0, 0.88, 0.1), (0.1, 0.45, 1.0))
GROUNDS = ((0.36, 0.47, 0.26), (0.42, 0.42, 0.43), (0.55, 0.5, 0.4), (0.5, 0.51, 0.5))
ROOFS = ((0.55, 0.33, 0.27), (0.46, 0.42, 0.42), (0.4, 0.43, 0.5))

Object = tuple[str, np.ndarray, int]
"""Category, corners (4, 2), difficulty."""


def render_sample(folder: Path, options: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Write `images/P0001.png` .. and `labelTxt/P0001.txt` ..

    Ground, roads, roofs, trees, pools and courts are drawn independently of the patches; then about
    half of the cells of a grid of `PATCH` pixels get one or two cars. Some images get another car,
    across a cell border, and some a truck.
    """
    at = grid((SIDE, SIDE))
    (folder / "labelTxt").mkdir(parents=True, exist_ok=True)
    for i in range(IMAGES):
        rng = keyed_random.generator(seed, "samples/dota", 0, i)
        canvas, objects = _ground(rng, at)
        objects += _vehicles(rng, canvas, at)
        save(folder / "images" / f"P{i + 1:04d}.png", canvas)
        lines = ["imagesource:drawn", "gsd:0.05"]
        for category, points, difficulty in objects:
            numbers = " ".join(f"{value:.1f}" for value in points.ravel())
            lines.append(f"{numbers} {category} {difficulty}")
        text = "\n".join(lines) + "\n"
        (folder / "labelTxt" / f"P{i + 1:04d}.txt").write_text(text)


def _ground(rng: np.random.Generator, at: np.ndarray) -> tuple[np.ndarray, list[Object]]:
    """Draw an aerial image without vehicles, and list the boxes of its other categories."""
    first, second = rng.permutation(len(GROUNDS))[:2]
    canvas = np.empty((SIDE, SIDE, 3), dtype=np.float32)
    canvas[:] = GROUNDS[first]
    paint(canvas, np.clip(2 * noise(rng, (SIDE, SIDE), 256), 0, 1), GROUNDS[second])
    canvas += 0.02 * noise(rng, (SIDE, SIDE), 24)[..., None]
    _road(rng, canvas, at)
    for _ in range(rng.integers(3, 7)):
        size, angle = tuple(rng.uniform(70, 150, 2)), rng.uniform(0, np.pi)
        stamp(canvas, at, _place(rng), size, angle, ROOFS[rng.integers(len(ROOFS))])
    for _ in range(rng.integers(8, 16)):
        centre, radius = _place(rng), rng.uniform(12, 26)
        near = around(at, centre, radius)
        mask = ellipse(at[:, *near], centre, (radius, radius))
        paint(canvas[near], mask, np.array([0.2, 0.33, 0.16]) * rng.uniform(0.8, 1.2))
    objects: list[Object] = []
    if rng.random() < 0.4:
        centre, size, angle = _place(rng), (50.0, 30.0), rng.uniform(0, np.pi)
        stamp(canvas, at, centre, size, angle, (0.35, 0.62, 0.66), corner=12)
        objects.append(("swimming-pool", corners(centre, size, angle), 0))
    if rng.random() < 0.3:
        centre, size, angle = _place(rng), (190.0, 90.0), rng.uniform(0, np.pi)
        stamp(canvas, at, centre, size, angle, (0.62, 0.66, 0.6))
        stamp(canvas, at, centre, (182, 82), angle, (0.34, 0.46, 0.38))
        objects.append(("tennis-court", corners(centre, size, angle), 0))
    return canvas, objects


def _road(rng: np.random.Generator, canvas: np.ndarray, at: np.ndarray) -> None:
    """Draw a straight road with a dashed line across the whole image."""
    centre, angle = _place(rng), rng.uniform(0, np.pi)
    paint(canvas, box(at, centre, (3 * SIDE, 130), angle), (0.36, 0.36, 0.38))
    along = np.array([np.cos(angle), np.sin(angle)])
    for step in np.arange(-SIDE, SIDE, 70.0):
        x, y = along * step + centre
        if 0 <= x < SIDE and 0 <= y < SIDE:
            stamp(canvas, at, (x, y), (34, 7), angle, (0.62, 0.62, 0.6))


def _vehicles(rng: np.random.Generator, canvas: np.ndarray, at: np.ndarray) -> list[Object]:
    """Draw the vehicles without overlap."""
    wanted: list[tuple[Point, Point, int]] = []
    for row in range(SIDE // PATCH):
        for column in range(SIDE // PATCH):
            for _ in range(rng.integers(1, 3) if rng.random() < 0.48 else 0):
                x, y = PATCH * np.array([column, row]) + rng.uniform(46, PATCH - 46, 2)
                wanted.append(((x, y), CAR, 0))
    if rng.random() < 0.5:
        border = PATCH * rng.integers(1, SIDE // PATCH) + rng.uniform(-25, 25)
        other = rng.uniform(60, SIDE - 60)
        crossing = (border, other) if rng.random() < 0.5 else (other, border)
        wanted.append((crossing, CAR, 1))
    if rng.random() < 0.3:
        x, y = rng.uniform(90, PATCH - 90, 2) + PATCH * rng.integers(0, SIDE // PATCH, 2)
        wanted.append(((x, y), TRUCK, 0))
    objects: list[Object] = []
    taken: list[tuple[Point, float]] = []
    for centre, size, difficulty in wanted:
        reach = np.hypot(*size) / 2
        if any(np.hypot(x - centre[0], y - centre[1]) < reach + r for (x, y), r in taken):
            continue
        angle = rng.uniform(0, 2 * np.pi)
        _vehicle(canvas, at, centre, size, angle, PAINTS[rng.integers(len(PAINTS))])
        category = "small-vehicle" if size == CAR else "large-vehicle"
        objects.append((category, corners(centre, size, angle), difficulty))
        taken.append((centre, reach))
    return objects


def _vehicle(
    canvas: np.ndarray, at: np.ndarray, centre: Point, size: Point, angle: float, colour: Colour
) -> None:
    """Draw the body and, for a car, the two panes beside its roof."""
    stamp(canvas, at, centre, size, angle, colour, corner=9)
    along = np.array([np.cos(angle), np.sin(angle)])
    for shift, length in ((0.16, 11), (-0.3, 8)) if size == CAR else ((0.4, 9),):
        x, y = centre + along * shift * size[0]
        stamp(canvas, at, (x, y), (length, size[1] - 8), angle, (0.1, 0.12, 0.15), corner=3)


def _place(rng: np.random.Generator) -> Point:
    x, y = rng.uniform(0, SIDE, 2)
    return x, y
