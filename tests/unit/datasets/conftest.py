from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dxai.datasets.registry import LAYOUTS
from dxai.datasets.samples import afhq, brats, celeba, dota, fruits360, noise, shapes

Tree = Callable[..., Path]
Drawn = Callable[[str], Path]

FEWER = (
    (afhq, "COUNTS", {"train": 12, "val": 4}),
    (brats, "CASES", 8),
    (celeba, "COUNTS", (30, 10, 10)),
    (dota, "IMAGES", 8),
    (fruits360, "COUNTS", {"Pepper": (10, 3), "Tomato": (10, 3), "Apple": (10, 3)}),
    (noise, "COUNTS", {"train": 30, "test": 10}),
    (shapes, "IMAGES", {"train": 10, "test": 4}),
)
"""What a sample is made smaller by; nothing but its number of images changes."""


def draw_few(patch: pytest.MonkeyPatch) -> None:
    """Let samples have a few images of each class until the patch is undone."""
    for module, name, value in FEWER:
        patch.setattr(module, name, value)


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


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw samples with a few images of each class."""
    draw_few(monkeypatch)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Return a function that draws a layout's small sample once; its folder is read-only."""
    folders: dict[str, Path] = {}

    def draw(layout: str) -> Path:
        if layout not in folders:
            folder = tmp_path_factory.mktemp(f"sample-{layout}")
            make = LAYOUTS[layout].render_sample
            assert make is not None
            with pytest.MonkeyPatch.context() as patch:
                draw_few(patch)
                make(folder, {})
            folders[layout] = folder
        return folders[layout]

    return draw
