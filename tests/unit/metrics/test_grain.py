"""How much grain a network stands, for networks of which it is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dxai.explain.controls import RandomMap
from dxai.metrics.curves import Curve
from dxai.metrics.grain import describe_grain, random_auc, random_maps
from dxai.metrics.removal import distinct_from_heatmap, remove
from dxai.results.validity import BRITTLE, VALID, validity_of

SIZE, COUNT, SEED = 16, 200, 3
CHESS = 1.0 - 2.0 * ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2)
INDEX = torch.arange(COUNT)
LABELS = INDEX % 2
SIDE = (2.0 * LABELS - 1).view(-1, 1, 1, 1)


class Brightness(nn.Module):
    """Class 1 if the image is bright, whatever its texture."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


class Parity(nn.Module):
    """Class 1 if even pixels are brighter than odd ones, by however little."""

    def forward(self, x: Tensor) -> Tensor:
        sum = (x * CHESS).sum((1, 2, 3))
        return torch.stack([-sum, sum], 1)


def images(per_class: Tensor | float, shared: float) -> Tensor:
    """Return (COUNT, 1, SIZE, SIZE): `per_class` with the sign of the class, and a shared level."""
    return SIDE * per_class * torch.ones(1, SIZE, SIZE) + shared


def test_a_network_of_brightness_stands_all_grain_and_one_of_faint_parity_none() -> None:
    bright = random_auc(Brightness(), images(0.5, 0.0), LABELS, INDEX, SEED)
    assert bright == 1.0, "a factor between 0 and 1 changes no sign of a mean"
    faint = random_auc(Parity(), images(5e-5 * CHESS, 0.5), LABELS, INDEX, SEED)
    # 1 at beta = 0, then chance, so an area of 0.05 * (1 + .5) + 0.9 * .5 = .525.
    assert faint == pytest.approx(0.525, abs=0.06)
    # The same pattern is safe where it is all that there is to see.
    assert random_auc(Parity(), images(0.5 * CHESS, 0.0), LABELS, INDEX, SEED) == 1.0
    for auc, found in ((bright, VALID), (faint, BRITTLE)):
        assert validity_of([{"method": "random", "status": "ok", "auc": auc}], 0.85) == found


def test_it_is_the_auc_of_the_method_random_in_table_1() -> None:
    x, network = images(0.004 * CHESS, 0.3), Parity()
    maps = RandomMap(network, {}, SEED).attribute(x, LABELS, INDEX)
    assert torch.equal(maps, random_maps(SEED, INDEX.tolist(), (SIZE, SIZE)))
    betas = torch.linspace(0, 1, 11)
    steps = remove(x, distinct_from_heatmap(maps, x, "relu"), betas)
    hits = torch.stack([network(step).argmax(1) == LABELS for step in steps], 1)
    auc = Curve(betas.numpy(), hits.numpy(), ["a"] * COUNT).auc
    assert 0.55 < auc < 0.95, "neither end"
    assert random_auc(network, x, LABELS, INDEX, SEED) == pytest.approx(auc)
    # A map belongs to its image, in whatever order and company that comes.
    back = torch.arange(COUNT - 1, -1, -1)
    assert random_auc(network, x[back], LABELS[back], back, SEED) == pytest.approx(auc)
    assert random_auc(network, x, LABELS, INDEX, SEED + 1) != pytest.approx(auc)


def test_no_hit_gives_no_area() -> None:
    assert math.isnan(random_auc(Brightness(), images(0.5, 0.0), 1 - LABELS, INDEX, SEED))


def test_a_line_says_what_the_area_means() -> None:
    assert describe_grain(0.9, 200, 0.85).endswith("Table 1 is valid for it")
    said = describe_grain(0.512, 200, 0.85)
    assert said.startswith("warning: random multiplicative grain leaves 0.51 of its accuracy on 2")
    assert "brittle" in said and "`noise` of `classifier`" in said
    assert "valid" in describe_grain(0.512, 200, 0.0), "0 switches it off"
    assert "not known" in describe_grain(math.nan, 200, 0.85)
