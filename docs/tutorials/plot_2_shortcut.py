"""
Finding a shortcut
==================

A network is to tell discs from crosses. In the images that it learns from, crosses are on slightly
warm paper and discs on slightly cool paper, as happens when two people take the pictures. The
network learns the paper. A heatmap shows only where it looks, which is everywhere; the
class-distinct part shows the colour.
"""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from torch import Tensor, nn

import dxai

SIDE, CLASSES = 24, ("cross", "disc")

# %%
# The images
# ----------
# Shapes of random size, place and gray on noisy paper. ``tint`` is the shortcut: how much red is
# added to the paper and taken from its blue. It does not touch the shape.


def drawn(label: int, tint: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image (H, W, 3) in [0, 1], and where its paper is (H, W)."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    x, y, radius = x - rng.uniform(-3, 3), y - rng.uniform(-3, 3), rng.uniform(5, 8)
    if CLASSES[label] == "disc":
        shape = np.hypot(x, y) < radius * 0.85
    else:
        shape = (np.minimum(abs(x), abs(y)) < radius / 3) & (np.maximum(abs(x), abs(y)) < radius)
    image = np.where(shape, rng.uniform(0.75, 0.9), rng.uniform(0.4, 0.6))[..., None].repeat(3, 2)
    image = image + rng.normal(0, 0.04, (SIDE, SIDE, 1))
    image[~shape] += np.array([tint, 0, -tint])
    return image.clip(0, 1), ~shape


def dataset(count: int, tints: tuple[float, float], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images (B, 3, H, W), their labels (B,) and their paper (B, H, W)."""
    rng, labels = np.random.default_rng(seed), torch.arange(count) % 2
    images, paper = zip(*(drawn(int(k), tints[k], rng) for k in labels), strict=True)
    pixels = torch.tensor(np.stack(images), dtype=torch.float32).permute(0, 3, 1, 2)
    return pixels, labels, torch.tensor(np.stack(paper))


WARM, COOL = 0.06, -0.06
train, train_labels, _ = dataset(240, (WARM, COOL), seed=0)
images, labels, paper = dataset(40, (WARM, COOL), seed=1)
swapped, swapped_labels, _ = dataset(40, (COOL, WARM), seed=2)

# %%
# The network
# -----------
# It is right on new images of the same kind, and wrong as soon as the papers are swapped.

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 16, 3, 2, 1),
    nn.ReLU(),
    nn.Conv2d(16, 16, 3, 2, 1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(16, 2),
)
optimiser = torch.optim.Adam(network.parameters(), 3e-3)
for step in range(300):
    rows = torch.arange(step * 24, step * 24 + 24) % len(train)
    batch = train[rows] + 0.05 * torch.randn(24, 3, SIDE, SIDE)
    loss = nn.functional.cross_entropy(network(batch), train_labels[rows])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
network.eval()


def accuracy(images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose class the network names."""
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


right, swapped_right = accuracy(images, labels), accuracy(swapped, swapped_labels)
print(f"accuracy: {right:.2f}; with swapped papers: {swapped_right:.2f}")
assert right > 0.95
assert swapped_right < 0.3

# %%
# What heatmaps show
# ------------------
# The heat is on the paper about as much as the paper covers the image: it says "the paper,
# everywhere". Whether that is its brightness, its grain or its colour, one number for each pixel
# cannot say.

covered = float(paper.float().mean())
print(f"the paper covers {covered:.2f} of the images")
for method in (IntegratedGradients(network), LayerGradCam(network, network[2])):
    heat = method.attribute(images, target=labels).detach().sum(1, keepdim=True)
    heat = nn.functional.interpolate(heat, SIDE, mode="bilinear").clamp(min=0)[:, 0]
    on_paper = float((heat * paper).sum() / heat.sum())
    print(f"{type(method).__name__}: {on_paper:.2f} of the heat is on the paper")
    assert 0.75 < on_paper / covered < 1.25

# %%
# What the parts show
# -------------------
# Three lines fit an explainer to the network and take the images apart.

data = list(zip(train, train_labels.tolist(), strict=True))
explainer = dxai.fit(network, data, classes=CLASSES, value_range=(0, 1), minutes=1, out="shortcut")
parts = explainer.explain(list(images), target=labels.tolist())

# %%
# A cross, and a disc. The class-distinct part is not the shape. It is a tint of the paper, red for
# one class and blue for the other.

parts[0].plot()

# %%
parts[1].plot()

# %%
# In numbers: by how much red exceeds blue on the paper, and how the shape stands out from it in
# green, which the tint leaves alone. Without the class-distinct part the papers of both classes
# have nearly the same tint and the shapes are untouched, yet the network is undecided: it had
# learnt nothing about shapes.


def redness(part: str) -> Tensor:
    """Return by how much red exceeds blue on the paper of each image, (B,)."""
    pixels = [getattr(p, part) for p in parts]
    return torch.stack([(v[0] - v[2])[w].mean() for v, w in zip(pixels, paper, strict=True)])


def contrast(part: str) -> float:
    """Return by how much shapes are brighter than their paper, in green."""
    pixels = [getattr(p, part)[1] for p in parts]
    return float(np.mean([v[~w].mean() - v[w].mean() for v, w in zip(pixels, paper, strict=True)]))


is_cross = labels == 0
for part in ("image", "distinct", "agnostic"):
    cross, disc = redness(part)[is_cross].mean(), redness(part)[~is_cross].mean()
    print(f"{part}: crosses {cross:+.3f}, discs {disc:+.3f}, contrast {contrast(part):+.3f}")
undecided = np.mean([p.neutrality > 0.9 for p in parts])
print(f"undecided without the class-distinct part: {undecided:.0%} of the images")

assert (redness("distinct")[is_cross] > 0).all() and (redness("distinct")[~is_cross] < 0).all()
left = redness("agnostic")[is_cross].mean() - redness("agnostic")[~is_cross].mean()
assert left < 0.5 * (redness("image")[is_cross].mean() - redness("image")[~is_cross].mean())
assert abs(contrast("agnostic") / contrast("image") - 1) < 0.15
assert undecided > 0.9

# %%
# What to do about it: photograph both classes on the same paper, or change the tint of training
# images at random, and look again.
