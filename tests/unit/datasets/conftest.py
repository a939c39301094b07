from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.datasets import Listing, Sample

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Write image files: `tree({"train/a": 3, "test/a": 2, ..})`, all of different pixels."""

    def write(folders: dict[str, int], suffix: str = ".png", size: int = 6) -> Path:
        root = tmp_path / "raw"
        seed = 0
        for folder, count in folders.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                seed += 1
                pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{i:03d}{suffix}")
        return root

    return write


def noise_samples(counts: dict[str, int], size: int = 8, channels: int = 3):
    """Samples of seeded noise, made one by one: `{"train": 5, ..}`, labels a, b, a, b .."""
    shape = (size, size, 3) if channels == 3 else (size, size)
    for split, count in counts.items():
        for i in range(count):
            pixels = np.random.default_rng((len(split), i)).integers(0, 256, shape)
            yield Sample(
                pixels.astype(np.uint8),
                split,
                "ab"[i % 2],
                f"{split}/{i}",
                f"g{i // 3}",
                f"box {i}",
            )


@pytest.fixture
def noise() -> Callable[..., Listing]:
    """A listing of noise images: `noise({"train": 5, ..}, size=8, channels=3)`."""

    def listing(counts: dict[str, int], size: int = 8, channels: int = 3) -> Listing:
        samples = noise_samples(counts, size, channels)
        return Listing(("a", "b"), sum(counts.values()), samples, {"seed": 0})

    return listing
