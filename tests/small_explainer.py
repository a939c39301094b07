"""A classifier whose answer is known, and its images, to fit explainers in seconds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dxai.library import fitting
from dxai.library.budget import Budget

CLASSES = ("blue", "red")
SIDE = 16


class Colour(nn.Module):
    """Tells red images from blue ones by the mean of these channels, for images in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.tensor([[-6.0, 0.0, 6.0], [6.0, 0.0, -6.0]])
        self.head = nn.Linear(3, 2)
        self.head.weight.data, self.head.bias.data = weight, torch.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


def pixels(label: str, seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """An image of gray noise, red or blue in the middle: (height, width, 3), uint8."""
    rng = np.random.default_rng([seed, CLASSES.index(label)])
    image = np.repeat(rng.integers(60, 120, (*size, 1)), 3, 2)
    top, left = size[0] // 4, size[1] // 4
    channel = 0 if label == "red" else 2
    image[top : size[0] - top, left : size[1] - left, channel] += 100
    return image.astype(np.uint8)


def draw(folder: Path, count: int = 14) -> Path:
    """Write `count` images of each class into `<folder>/<class>/`."""
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(pixels(label, i)).save(folder / label / f"{i:02d}.png")
    return folder


class FixedTiming(pytest.MonkeyPatch):
    """Until it is undone, a fit in minutes takes 20 steps, on any machine."""

    def __init__(self) -> None:
        super().__init__()
        self.setattr(
            fitting,
            "Budget",
            lambda minutes, began, steps: Budget(minutes, began, steps or 20),
        )


def documented(section: str) -> list[str]:
    """Return the blocks of Python code in a section of docs/classifiers.md."""
    text = (Path(__file__).resolve().parents[1] / "docs/classifiers.md").read_text()
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    return re.findall(r"```python\n(.*?)```", body, re.DOTALL)
