"""The projection onto undecided images, where its answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from torch import Tensor

from dxai.explain import projection
from dxai.metrics.removal import UNDECIDED


def test_a_distance_is_that_of_equation_7() -> None:
    u, v = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, 1, 2, 2)
    assert projection.distance(u, v) == pytest.approx(0.5 + 0.25)


def test_minimise_finds_what_scipy_finds() -> None:
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 4, 4, generator=draw, dtype=torch.float64)
    matrix = matrix @ matrix.mT / 4 + torch.eye(4)
    goal = 0.2 * torch.randn(3, 4, generator=draw, dtype=torch.float64)

    def loss(a: Tensor) -> Tensor:
        away = a - goal
        return torch.einsum("bi,bij,bj->b", away, matrix, away) + away.square().square().sum(1)

    found = projection.minimise(loss, torch.zeros(3, 4, dtype=torch.float64), 40)
    for row in range(3):
        alone = minimize(
            lambda a, row=row: float(
                loss(torch.tensor(a).expand(3, -1) if a.ndim == 1 else a)[row]
            ),
            np.zeros(4),
        )
        np.testing.assert_allclose(found[row], alone.x, atol=1e-3)


def test_minimise_is_nowhere_worse_than_its_start() -> None:
    start = torch.tensor([[0.0], [3.0]])
    found = projection.minimise(lambda a: (50 * a).sin().abs().sum(1), start, 5)
    assert ((50 * found).sin().abs() <= (50 * start).sin().abs() + 1e-6).all()


def test_the_only_direction_is_followed_to_where_a_linear_classifier_is_undecided() -> None:
    """Two classes and one basis image: the logit is linear in the coefficient."""
    draw = torch.Generator().manual_seed(1)
    part = torch.randn(1, 1, 8, 8, generator=draw)
    part /= part.square().mean().sqrt()
    images = 0.3 * torch.randn(2, 1, 8, 8, generator=draw)
    images += 0.5 * part - (images * part).mean((1, 2, 3), keepdim=True) * part

    def classifier(x: Tensor) -> Tensor:
        z = 20 * (x * part).mean((1, 2, 3))
        return torch.stack([z / 2, -z / 2], 1)

    basis = part[None].expand(2, 1, 1, 8, 8)
    target = torch.zeros(2, dtype=torch.long)
    found = projection.project(classifier, images, target, basis, [0, 1])
    coefficient = (found.distinct * part).mean((1, 2, 3))
    np.testing.assert_allclose(coefficient, 0.5, atol=0.05)
    expected = coefficient[:, None, None, None] * part
    torch.testing.assert_close(found.distinct, expected, atol=5e-5, rtol=0)
    assert (found.neutrality > UNDECIDED).all()


@pytest.mark.parametrize(
    ("channels", "side", "directions"),
    [(1, 8, 3), (3, 64, 6)],
    ids=["hardly split", "coarse and fine apart"],
)
def test_components_are_orthogonal_span_the_basis_and_amplify_no_noise(
    channels: int, side: int, directions: int
) -> None:
    draw = torch.Generator().manual_seed(4)
    noise = torch.randn(2, 2, 4, channels, side, side, generator=draw)
    coarse = projection.blurred(noise[0], 2 * projection.SPLIT)
    basis = coarse / coarse.square().mean().sqrt() + noise[1]
    basis[:, 3] = basis[:, 2] + 1e-4 * basis[:, 3]  # but for noise, the same direction twice
    components, first = projection._orthogonal(basis)
    torch.testing.assert_close(torch.einsum("bk,bkchw->bchw", first, components), basis[:, 0])
    flat = components.flatten(2)
    gram = flat @ flat.mT / flat.shape[2]
    squares = gram.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(gram, squares.diag_embed(), atol=1e-4, rtol=0)
    assert (squares.amin(1) < 1e-4).all()
    assert ((squares > 0.9) & (squares <= 1)).sum(1).tolist() == [directions, directions]


@pytest.mark.parametrize(("deviation", "side"), [(1 / 32, 64), (1 / 64, 96), (1 / 64, 8)])
def test_a_blur_is_scipys(deviation: float, side: int) -> None:
    images = torch.randn(2, 3, side, side + 4, generator=torch.Generator().manual_seed(5))
    pixels = (deviation * side,) * 2
    expected = gaussian_filter(images.numpy(), (0, 0, *pixels), mode="mirror", truncate=3)
    np.testing.assert_allclose(projection.blurred(images, deviation), expected, atol=1e-5)


def test_fine_structures_are_taken_from_where_the_image_has_some() -> None:
    """A part of waves and grain, both of which decide: on an even image the waves are taken."""
    draw = torch.Generator().manual_seed(6)
    wave = torch.linspace(0, 4 * torch.pi, 64).sin().expand(1, 1, 64, 64)
    grain = torch.randn(1, 1, 64, 64, generator=draw)
    grain = grain - projection.blurred(grain, projection.SPLIT)
    wave, grain = (u / u.square().mean().sqrt() for u in (wave, grain))

    def classifier(x: Tensor) -> Tensor:
        z = 20 * ((wave + grain) * x).mean((1, 2, 3))
        return torch.stack([z / 2, -z / 2], 1)

    other = torch.randn(1, 1, 64, 64, generator=draw)
    other -= (other * grain).mean() * grain
    images = torch.cat([0.2 * wave + 0.2 * grain, 0.2 * wave + 0.2 * grain + 0.3 * other])
    images[0] -= 0.19 * grain[0]
    basis = (wave + grain)[None].expand(2, 1, 1, 64, 64)
    found = projection.project(classifier, images, torch.zeros(2, dtype=torch.long), basis, [0, 1])
    taken = [(found.distinct * u).mean((1, 2, 3)) for u in (wave, grain)]
    even, rough = (taken[1] / taken[0]).tolist()
    assert 5 * even < rough < 1, "without the weight of ripples both are above 1"
    assert (found.neutrality > UNDECIDED).all()


@pytest.mark.parametrize("deviation", [0.1, 0.2, 0.3])
def test_grain_that_makes_the_class_is_drawn_onto_an_even_image(deviation: float) -> None:
    """An undecided image comes first, ripples second: the other class is one with white grain."""
    draw = torch.Generator().manual_seed(7)
    grain = torch.randn(1, 1, 64, 64, generator=draw)
    grain /= grain.square().mean().sqrt()

    def classifier(x: Tensor) -> Tensor:
        z = 3 - 6 * (grain * x).mean((1, 2, 3)) / deviation
        return torch.stack([z / 2, -z / 2], 1)

    images = torch.full((1, 1, 64, 64), 0.1)
    basis = (-deviation * grain)[None]
    found = projection.project(classifier, images, torch.zeros(1, dtype=torch.long), basis, [0])
    assert found.neutrality > UNDECIDED


def test_where_nothing_helps_it_says_so() -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))

    def sure(x: Tensor) -> Tensor:
        return torch.stack([5 + 0 * x.sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1)

    basis = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    found = projection.project(sure, images, torch.zeros(2, dtype=torch.long), basis, [0, 1])
    assert (found.neutrality < UNDECIDED).all()
