"""
Colour and texture
==================

Two things that a heatmap cannot name: a colour and a texture. Both are everywhere in an image, so
*where* says nothing; the class-distinct part says *what*.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import dxai
from dxai.library import demo

# %%
# A texture
# ---------
# The package has an explainer of a network that tells photographs of brick, grass and gravel apart,
# and patches that were not used to train it (``dxai demo`` shows them all).

explainer = dxai.DXAI.load(demo.FOLDER)
gravel = sorted((demo.FOLDER / demo.PATCHES).glob("gravel-*.png"))[0]
parts = explainer.explain(gravel)
parts.plot()

# %%
# The class-distinct part is a pattern, dark next to bright, and hardly a change of brightness: its
# mean is small beside its deviation. Without it the network is undecided.

mean, deviation = float(parts.distinct.mean()), float(parts.distinct.std())
print(f"class-distinct: mean {mean:+.3f}, deviation {deviation:.3f}")
for image, answer in parts.probabilities.items():
    print(f"{image}: P(gravel) {answer['gravel']:.2f}")
assert parts.predicted == "gravel"
assert abs(mean) < 0.5 * deviation
assert parts.neutrality > 0.9

# %%
# Both parts add up to the image.

assert torch.allclose(parts.agnostic + parts.distinct, parts.image, atol=1e-6)

# %%
# A colour
# --------
# This network is known: it compares red with blue, averaged over the image. Green does not count,
# nor does any pattern.


class Colour(nn.Module):
    """Logits of blue and red, by the mean of these channels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2, bias=False)
        self.head.weight.data = torch.tensor([[-6.0, 0.0, 6.0], [6.0, 0.0, -6.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


def patch(label: int, rng: np.random.Generator) -> Tensor:
    """Draw gray noise with a tint, (3, 16, 16) in [0, 1]."""
    image = np.repeat(rng.uniform(0.3, 0.6, (16, 16, 1)), 3, 2)
    image[..., (2, 0)[label]] += 0.2
    return torch.tensor(image, dtype=torch.float32).permute(2, 0, 1)


rng = np.random.default_rng(0)
images = [(patch(k % 2, rng), k % 2) for k in range(80)]
explainer = dxai.fit(
    Colour(), images, classes=("blue", "red"), value_range=(-1, 1), minutes=0.5, out="colour"
)

# %%
# The class-distinct part of a red image is flat: red is added, blue taken away, and green is left
# as it is. The noise stays in the class-agnostic part.

parts = explainer.explain(patch(1, rng), value_range=(0, 1))
parts.plot()

# %%
red, green, blue = parts.distinct.mean((1, 2)).tolist()
print(f"class-distinct: red {red:+.2f}, green {green:+.2f}, blue {blue:+.2f}")
assert red > 0 > blue
assert abs(green) < 0.5 * (red - blue) / 2
assert parts.neutrality > 0.9
