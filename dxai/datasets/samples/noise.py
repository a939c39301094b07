"""Sample for the noise set: drawn faces without noise, which the layout adds to half of them."""

from __future__ import annotations

from pathlib import Path

from dxai import draws
from dxai.datasets.samples.celeba import face
from dxai.datasets.samples.drawing import save

COUNTS = {"train": 800, "test": 160}


def draw(folder: Path, seed: int = 0) -> None:
    """Write `train/00001.png` .. and `test/..`

    Faces of both kinds that `celeba` draws, stored without loss and without any grain: at 32 px
    neighbouring pixels differ by less than the noise, but for outlines.

    Parameters
    ----------
    folder : path
        Where to write; need not exist.
    seed : int
        Of every draw.
    """
    i = 0
    for split, count in COUNTS.items():
        for k in range(count):
            rng = draws.generator(seed, "samples/noise", 0, i)
            canvas, _, _ = face(rng, bool(rng.random() < 0.5))
            save(folder / split / f"{k + 1:05d}.png", canvas)
            i += 1
