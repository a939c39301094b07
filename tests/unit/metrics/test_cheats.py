"""Parts that win the AUC by a trick: some guard exposes each, but not an honest part.

The class of an image is the direction of a bright bar on a cloudy ground. The honest part is the
bar; its removal leaves the ground, which says nothing of the class.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.config.schema import EvaluateParams
from dxai.explain.controls import random_phase, shuffled
from dxai.metrics.scorer import Scorer
from dxai.types import Batch

SIZE, CLASSES, IMAGES, STEPS = 16, 4, 96, 80
Rows = dict[str, dict[str, Any]]


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images (N, 1, 16, 16), the bars in them, and their classes."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = labels[:, None, None] * torch.pi / CLASSES
    offset = 6 * torch.rand(count, 1, 1, generator=rng) - 3
    across = x * angle.sin() + y * angle.cos() - offset
    bars = 0.5 * torch.exp(-across.square() / 2)[:, None]
    clouds = torch.randn(count, 1, 4, 4, generator=rng)
    ground = 0.15 * F.interpolate(clouds, SIZE, mode="bilinear", align_corners=False)
    grain = 0.02 * torch.randn(bars.shape, generator=rng)
    return ground + grain + bars - 0.4, bars, labels


def trained(seed: int) -> nn.Module:
    """Train a small network on any brightness, which faint patterns can mislead."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 16, CLASSES),
    )  # fmt: skip
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(STEPS):
        images, _, labels = drawn(64, 1000 * (seed + 1) + step)
        brightness = 0.6 * torch.rand(64, 1, 1, 1) - 0.3
        optimiser.zero_grad()
        F.cross_entropy(network(images + brightness), labels).backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def adversarial(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return a small part found by targeted PGD, without which the class changes."""
    radius, wanted, found = 0.1, (labels + 1) % CLASSES, images.clone()
    for _ in range(20):
        found.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(network(found), wanted), found)
        found = found.detach() - radius / 5 * slope.sign()
        found = images + (found - images).clamp(-radius, radius)
    return images - found


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Map a method to its row of Table 1; "a, shuffled" and "a, random phases" control a."""
    with torch.random.fork_rng():
        explained, twin = trained(0), trained(1)
    images, bars, labels = drawn(IMAGES, 7)
    index, names = torch.arange(IMAGES), [str(i) for i in range(IMAGES)]
    batch = Batch(images, labels, index, names, names)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    parts = {
        "honest": bars,
        "image": images,
        "noise": 1.5 * noise,
        "constant": torch.full_like(images, 0.25),
        "adversarial": adversarial(explained, images, labels),
    }
    for name in ("honest", "noise"):
        parts[f"{name}, shuffled"] = shuffled(parts[name], index, 0)
        parts[f"{name}, random phases"] = random_phase(parts[name], index, 0)
    settings = EvaluateParams(batch_size=256, bootstrap=100)
    scorer = Scorer(explained, twin, ["-", "/", "|", "\\"], settings, seed=0)
    for name, part in parts.items():
        scorer.add(name, "part", batch, part)
    return {name: scorer.row(name, "part", None) for name in parts}


CONTROLS = ("shuffled", "random phases")


def test_the_honest_part_passes_every_guard(rows: Rows) -> None:
    honest = rows["honest"]
    assert honest["accuracy"] > 0.97
    assert honest["auc"] < 0.75
    assert honest["auc_energy"] < 0.65
    assert honest["auc_transfer"] < 0.85
    assert honest["auc_blur"] < 0.9
    for control in CONTROLS:
        assert rows[f"honest, {control}"]["auc"] > honest["auc"] + 0.2


def test_the_image_itself_removes_too_much(rows: Rows) -> None:
    honest, image = rows["honest"], rows["image"]
    assert image["auc"] < honest["auc"] + 0.05
    assert image["mean_abs_distinct"] > 3 * honest["mean_abs_distinct"]
    assert image["psnr_removed_db"] < honest["psnr_removed_db"] - 5
    assert image["auc_energy"] > honest["auc_energy"] + 0.25


def test_noise_has_no_structure(rows: Rows) -> None:
    honest, noise = rows["honest"], rows["noise"]
    assert noise["auc"] < honest["auc"] - 0.1
    assert noise["auc_energy"] > honest["auc_energy"] + 0.25
    for control in CONTROLS:
        assert abs(rows[f"noise, {control}"]["auc"] - noise["auc"]) < 0.1


def test_a_constant_does_nothing(rows: Rows) -> None:
    constant = rows["constant"]
    assert constant["mean_abs_distinct"] > rows["honest"]["mean_abs_distinct"]
    for column in ("auc", "auc_energy", "auc_transfer", "auc_blur"):
        assert constant[column] > 0.95


def test_an_adversarial_pattern_fools_nobody_else(rows: Rows) -> None:
    honest, pattern = rows["honest"], rows["adversarial"]
    assert pattern["auc"] < honest["auc"]
    assert pattern["auc_energy"] < honest["auc_energy"]
    assert pattern["auc_transfer"] > 0.9 > honest["auc_transfer"]
    assert honest["auc_transfer_energy"] < honest["auc_energy"] + 0.2
    assert pattern["auc_transfer_energy"] > pattern["auc_energy"] + 0.4
    assert pattern["auc_blur"] > 0.95 > honest["auc_blur"]
