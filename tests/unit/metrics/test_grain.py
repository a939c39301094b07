"""How much grain a network stands, for networks of which it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dxai.explain.controls import RandomMap
from dxai.metrics.curves import Curve
from dxai.metrics.grain import describe_grain, grain_of, random_aucs, random_maps
from dxai.metrics.removal import distinct_from_heatmap, remove
from dxai.results.validity import BRITTLE, VALID, validity_of

SIZE, COUNT, SEED = 16, 200, 3
CHESS = 1.0 - 2.0 * ((torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2)
INDEX = torch.arange(COUNT)
LABELS = INDEX % 2
BOTH = {"relu": 1.0, "signed": 1.0}
SIDE = (2.0 * LABELS - 1).view(-1, 1, 1, 1)


class Brightness(nn.Module):
    """Class 1 if the image is bright, whatever its texture."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)


class Contrast(nn.Module):
    """Class 1 if the mean square of the image is below a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        power = x.square().mean((1, 2, 3))
        return torch.stack([power - self.limit, self.limit - power], 1)


class Parity(nn.Module):
    """Class 1 if even pixels are brighter than odd ones, by however little."""

    def forward(self, x: Tensor) -> Tensor:
        sum = (x * CHESS).sum((1, 2, 3))
        return torch.stack([-sum, sum], 1)


def validity(aucs: dict[str, float]) -> str:
    """Return what the rows of Random with these areas make of a classifier."""
    named = {"method": "random", "status": "ok"}
    return validity_of([named | {"sign": sign, "auc": auc} for sign, auc in aucs.items()], 0.85)


def images(per_class: Tensor | float, shared: float) -> Tensor:
    """Return (COUNT, 1, SIZE, SIZE): `per_class` with the sign of the class, and a shared level."""
    return SIDE * per_class * torch.ones(1, SIZE, SIZE) + shared


def test_a_network_of_brightness_stands_all_grain_and_one_of_faint_parity_none() -> None:
    bright = random_aucs(Brightness(), images(0.5, 0.0), LABELS, INDEX, SEED)
    assert bright == BOTH, "1 - w is positive, so it changes no sign of a mean"
    faint = random_aucs(Parity(), images(5e-5 * CHESS, 0.5), LABELS, INDEX, SEED)
    # 1 at beta = 0, then chance, so an area of 0.05 * (1 + .5) + 0.9 * .5 = .525.
    assert faint == pytest.approx(dict.fromkeys(BOTH, 0.525), abs=0.06)
    # The same pattern is safe where it is all that there is to see.
    assert random_aucs(Parity(), images(0.5 * CHESS, 0.0), LABELS, INDEX, SEED) == BOTH
    assert [validity(bright), validity(faint)] == [VALID, BRITTLE]


@pytest.mark.parametrize(
    ("powers", "broken"),
    [
        # The mean of (1 - beta w)^2 is 1 + beta^2 / 3 for w in U[-1, 1): it reaches 1.1 between
        # beta = .5 and .6. Positive w only lowers it, to 1/3, which is above the limit of class 0.
        ((4.0, 1 / 1.1), "signed"),
        # For w in U[0, 1) it is 1 - beta + beta^2 / 3, .55 between .5 and .6; 4/3 is harmless.
        ((1 / 0.55, 0.5), "relu"),
    ],
)
def test_a_network_of_contrast_is_broken_by_one_kind_of_grain(
    powers: tuple[float, float], broken: str
) -> None:
    """Class 0 has more contrast than the limit of 1, class 1 less; `broken` moves one across."""
    labels = torch.arange(4) % 2
    size = 256  # the mean over so many pixels is certain to lie where its expectation does
    levels = torch.tensor(powers)[labels].sqrt().view(-1, 1, 1, 1)
    x = levels * torch.ones(1, 1, size, size)
    aucs = random_aucs(Contrast(1.0), x, labels, torch.arange(4), SEED)
    # All are right up to beta = .5, one class from .6 on: .5 + .1 * .75 + .4 * .5.
    assert aucs == pytest.approx({**BOTH, broken: 0.775})
    assert validity(aucs) == BRITTLE and validity(BOTH) == VALID
    ((_, kept),) = ((sign, auc) for sign, auc in aucs.items() if sign != broken)
    assert kept == 1.0
    does = {"relu": "only takes contrast away", "signed": "also adds contrast"}[broken]
    said = describe_grain(aucs, "4 images", 0.85)
    assert (
        f"warning: random grain that {does} leaves 0.78 of its accuracy on 4 images (1.00" in said
    )


def test_it_is_the_auc_of_the_method_random_in_table_1() -> None:
    x, network = images(0.004 * CHESS, 0.3), Parity()
    maps = RandomMap(network, {}, SEED).attribute(x, LABELS, INDEX)
    assert torch.equal(maps, random_maps(SEED, INDEX.tolist(), (SIZE, SIZE)))
    betas = torch.linspace(0, 1, 11).tolist()
    aucs = {}
    for sign, low in (("relu", 0.0), ("signed", -1.0)):
        weights = maps * (1 - low) + low
        assert torch.equal(grain_of(maps, sign), weights)
        steps = remove(x, distinct_from_heatmap(weights, x, sign), betas)
        hits = torch.stack([network(step).argmax(1) == LABELS for step in steps], 1)
        aucs[sign] = Curve(np.array(betas), hits.numpy(), ["a"] * COUNT).auc
        assert 0.55 < aucs[sign] < 0.95, "neither end"
    assert random_aucs(network, x, LABELS, INDEX, SEED) == pytest.approx(aucs)
    # A map belongs to its image, in whatever order and company that comes.
    back = torch.arange(COUNT - 1, -1, -1)
    assert random_aucs(network, x[back], LABELS[back], back, SEED) == pytest.approx(aucs)
    assert random_aucs(network, x, LABELS, INDEX, SEED + 1) != pytest.approx(aucs)


def test_no_hit_gives_no_area() -> None:
    found = random_aucs(Brightness(), images(0.5, 0.0), 1 - LABELS, INDEX, SEED)
    assert all(map(math.isnan, found.values()))


def test_a_line_says_what_the_lower_area_means() -> None:
    said = describe_grain({"relu": 0.9, "signed": 0.96}, "200 images", 0.85)
    assert said == (
        "random grain that only takes contrast away leaves 0.90 of its accuracy on 200 images "
        "(0.96 if it also adds some): Table 1 is valid for it"
    )
    weak = {"relu": 0.89, "signed": 0.512}
    said = describe_grain(weak, "200 images", 0.85)
    assert said.startswith(
        "warning: random grain that also adds contrast leaves 0.51 of its accuracy on 200 images "
        "(0.89 if it only takes some away) (evaluate.valid_auc: 0.85): brittle"
    )
    assert "`noise` of `classifier`" in said
    assert "valid" in describe_grain(weak, "200 images", 0.0), "0 switches it off"
    assert "not known" in describe_grain({"relu": math.nan, "signed": math.nan}, "200 images", 0.85)
