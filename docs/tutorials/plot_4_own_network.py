"""
Your own network
================

A network has conventions of its own: how its images are normalised, which size they have, what it
returns. None of it has to be rewritten; arguments of :func:`dxai.fit` say it. What does not fit is
found before anything is trained, and one line says which argument mends it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import dxai

# %%
# A folder of photographs
# -----------------------
# Days and nights, of any size: a sky that is bright or dark over a ground of random brightness.


def photograph(name: str, rng: np.random.Generator) -> Image.Image:
    """Draw a sky over a ground."""
    pixels = rng.integers(90, 150, (40, 48, 3)).astype(float)
    pixels[:20] += {"day": 50, "night": -50}[name]
    pixels[20:] += rng.uniform(-50, 50)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


rng = np.random.default_rng(0)
for name in ("day", "night"):
    folder = Path("photos", name)
    folder.mkdir(parents=True)
    for k in range(40):
        photograph(name, rng).save(folder / f"{k:03d}.png")

# %%
# The network
# -----------
# It wants images of 32 pixels, less ImageNet's mean over its deviation; it knows the classes in
# another order than the folder, and returns a dict. By construction it sees nothing but the sky.

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Sky(nn.Module):
    """Tells night (0) from day (1) by the mean of the upper half of an image (B, 3, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        assert x.shape[1:] == (3, 32, 32)
        light = self.scale * x[:, :, :16].mean((1, 2, 3))
        return {"scores": torch.stack((-light, light), 1), "features": x.flatten(1)}


# %%
# What does not fit
# -----------------
# Forgotten arguments are found on a few images:

try:
    dxai.fit(Sky(), "photos", size=32, minutes=0.5, mean=MEAN, std=STD, field="scores", out="sky")
except ValueError as error:
    print(error)
    assert "with classes: [night, day] it is 1.00" in str(error)
else:
    raise AssertionError("the order of the classes is wrong")

# %%
# What fits
# ---------

explainer = dxai.fit(
    Sky(),
    "photos",
    classes=("night", "day"),
    mean=MEAN,
    std=STD,
    size=32,
    field="scores",
    image_size=16,
    minutes=0.5,
    out="sky",
)
parts = explainer.explain("photos/day/000.png")
parts.plot()

# %%
# The network sees nothing but the sky. So the part takes the difference between day and night out
# of the sky, and most of it is there.

photos = sorted(Path("photos").glob("*/00*.png"))
found = explainer.explain(photos)
is_day = torch.tensor(["day" in p.name for p in found])


def brightness(part: str) -> float:
    """Return by how much the sky of days is brighter than that of nights, in [-2, 2]."""
    light = torch.stack([getattr(p, part)[:, :20].mean() for p in found])
    return float(light[is_day].mean() - light[~is_day].mean())


energy = torch.stack([p.distinct.square().sum((0, 2)) for p in found]).mean(0)
share = float(energy[:20].sum() / energy.sum())
print(f"day less night: {brightness('image'):+.2f}, without the part {brightness('agnostic'):+.2f}")
print(f"{share:.0%} of the part's energy is in the sky, half of the area")
assert abs(brightness("agnostic")) < 0.4 * brightness("image")
assert share > 0.6

# %%
# Opened again
# ------------
# An explainer's folder opens without the network's code: it was stored as a program.

again = dxai.DXAI.load("sky")
assert torch.equal(again.explain(photos[0]).distinct, explainer.explain(photos[0]).distinct)
