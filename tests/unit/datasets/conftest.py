from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
