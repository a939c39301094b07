"""Sample for the noise set: drawn faces without noise, which the layout adds to half of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dxai.datasets.samples.celeba import face
from dxai.datasets.samples.drawing import blur, save
from dxai.utils import keyed_random

COUNTS = {"train": 800, "test": 160}
FOCUS = 3.0
"""Deviation of the blur, in pixels of a face image, which is 89 wide."""


def render_sample(folder: Path, options: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Write `train/00001.png` .. and `test/..`

    Faces of both `celeba` classes, out of focus and stored losslessly: they have no grain of their
    own, so that the noise added to half of them is the only one.
    """
    i = 0
    for split, count in COUNTS.items():
        for k in range(count):
            rng = keyed_random.generator(seed, "samples/noise", 0, i)
            canvas, _, _ = face(rng, bool(rng.random() < 0.5))
            save(folder / split / f"{k + 1:05d}.png", blur(canvas, FOCUS))
            i += 1
