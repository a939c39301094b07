"""A tree of disks and squares, for the layout `folder`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dxai import draws

SIDE = 64
IMAGES = {"train": 150, "test": 60}
"""Of each class."""


def draw(folder: Path, seed: int = 0) -> None:
    """Write `train,test/{disk,square}/*.png`, the shape at a random place on smooth ground.

    The shape itself is class-distinct: `truth/mask/` holds it.
    """
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for split, count in IMAGES.items():
        for label in ("disk", "square"):
            for i in range(count):
                rng = draws.generator(seed, f"shapes/{split}/{label}", 0, i)
                radius, (cx, cy) = rng.uniform(8, 13), rng.uniform(16, SIDE - 16, 2)
                dx, dy = np.abs(x - cx), np.abs(y - cy)
                far = np.hypot(dx, dy) if label == "disk" else np.maximum(dx, dy) * 1.13
                inside = np.clip(radius - far + 0.5, 0, 1)[..., None]
                slope = rng.uniform(-0.4, 0.4, 2)
                ground = 110 + (slope[0] * (x - SIDE / 2) + slope[1] * (y - SIDE / 2))[..., None]
                colour = rng.uniform(170, 250, 3)
                picture = ground * (1 - inside) + colour * inside
                picture = picture + rng.normal(0, 3, (SIDE, SIDE, 1))
                _save(folder / split / label / f"{i:04d}.png", picture)
                _save(folder / "truth/mask" / split / label / f"{i:04d}.png", 255 * inside[..., 0])


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.round().clip(0, 255).astype(np.uint8)).save(path)
