"""Controls keep what they claim to keep."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dxai.explain.controls import random_phase, shuffled

SHAPES = [(2, 1, 8, 8), (2, 3, 8, 8), (3, 3, 7, 9)]


@pytest.fixture(params=SHAPES, ids=str)
def part(request: pytest.FixtureRequest) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(request.param, generator=draw) + 0.5


@pytest.mark.parametrize("control", [shuffled, random_phase])
def test_keyed_by_seed_and_image(control, part: Tensor) -> None:
    index = torch.arange(len(part)) + 10
    first = control(part, index, 0)
    assert first.shape == part.shape and first.dtype == part.dtype
    assert torch.equal(control(part[1:], index[1:], 0), first[1:])
    assert not torch.allclose(control(part, index, 1), first)
    same_image_twice = control(part[:1].repeat(2, 1, 1, 1), torch.tensor([10, 11]), 0)
    assert not torch.allclose(same_image_twice[0], same_image_twice[1])
    assert not torch.allclose(first, part)


def test_shuffled_keeps_the_pixels_whole(part: Tensor) -> None:
    moved = shuffled(part, torch.arange(len(part)), 0)
    for image, other in zip(part, moved, strict=True):
        pixels = sorted(map(tuple, image.flatten(1).T.tolist()))
        assert pixels == sorted(map(tuple, other.flatten(1).T.tolist()))


def test_random_phase_keeps_spectrum_energy_and_mean(part: Tensor) -> None:
    turned = random_phase(part, torch.arange(len(part)), 0)
    amplitude, expected = torch.fft.fft2(turned).abs(), torch.fft.fft2(part).abs()
    torch.testing.assert_close(amplitude, expected, rtol=1e-4, atol=1e-4)
    energy = (turned**2).sum((2, 3))
    torch.testing.assert_close(energy, (part**2).sum((2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(turned.mean((2, 3)), part.mean((2, 3)), rtol=1e-4, atol=1e-6)


def test_random_phase_keeps_how_channels_relate(part: Tensor) -> None:
    twice = torch.cat([part, -2 * part], 1)
    turned = random_phase(twice, torch.arange(len(part)), 0)
    first, second = turned.chunk(2, dim=1)
    torch.testing.assert_close(second, -2 * first, rtol=1e-4, atol=1e-5)


def test_random_phases_are_uniform() -> None:
    impulse = torch.zeros(1, 1, 32, 32)
    impulse[0, 0, 0, 0] = 1
    phases = torch.fft.fft2(random_phase(impulse, torch.tensor([0]), 0)).angle()[0, 0]
    # Mean direction of n uniform phases: about 1/sqrt(n) long; one at zero would be 1.
    assert torch.polar(torch.ones(()), phases).mean().abs() < 0.1
