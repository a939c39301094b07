"""A tree of light disks and dark crosses, for the layout `folder`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dxai.utils import keyed_random

SIDE = 64
IMAGES = {"train": 200, "test": 80}
"""Images per class."""


def render_sample(folder: Path, options: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Write `train,test/{cross,disk}/*.png`: dark crosses and light disks at random positions.

    The shape itself is class-distinct: `truth/mask/` holds it.
    """
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for split, count in IMAGES.items():
        for label in ("cross", "disk"):
            for i in range(count):
                rng = keyed_random.generator(seed, f"shapes/{split}/{label}", 0, i)
                radius, (cx, cy) = rng.uniform(10, 14), rng.uniform(16, SIDE - 16, 2)
                dx, dy = np.abs(x - cx), np.abs(y - cy)
                far = np.hypot(dx, dy)
                if label == "cross":
                    # This half width of a bar gives both shapes the same area.
                    far = np.maximum(np.maximum(dx, dy), np.minimum(dx, dy) * 2.1)
                inside = np.clip(radius - far + 0.5, 0, 1)[..., None]
                slope = rng.uniform(-0.4, 0.4, 2)
                ground = 110 + (slope[0] * (x - SIDE / 2) + slope[1] * (y - SIDE / 2))[..., None]
                # Brightness differs, too, or a small network would need more images.
                colour = rng.uniform(170, 250, 3) if label == "disk" else rng.uniform(0, 50, 3)
                picture = ground * (1 - inside) + colour * inside
                picture = picture + rng.normal(0, 3, (SIDE, SIDE, 1))
                _save(folder / split / label / f"{i:04d}.png", picture)
                _save(folder / "truth/mask" / split / label / f"{i:04d}.png", 255 * inside[..., 0])


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.round().clip(0, 255).astype(np.uint8)).save(path)
