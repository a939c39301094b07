"""The README's three lines, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.small_explainer import FixedTiming

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ("apple", "cross", "zebra")


class Channels(nn.Module):
    """Tells classes apart by the channel with the largest mean, for images in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(9.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean((2, 3))


def test_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(FixedTiming().undo)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for channel, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            image = rng.integers(60, 120, (48, 40, 3), dtype=np.uint8)
            image[..., channel] += 60
            Image.fromarray(image).save(tmp_path / f"photos/{name}/{i:03d}.png")
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(import dxai\n.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) == 3
    exec(code, {"model": Channels()})
    assert '<input type="range"' in Path("zebra.html").read_text()
    assert (tmp_path / "explainer/model.pt").is_file()
