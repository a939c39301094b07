"""The nearest undecided image within what a generator has learnt to change: Eq. 2 of the paper.

The class-agnostic image is x - sum_m a_m b_m, where the b_m are the parts that the generator draws
for several classes, so that only the coefficients are free and no adversarial pattern can enter.
They minimise the divergence of the classifier's answer from uniform plus the distance to x. The
first steps also ask for an undecided answer under as much noise as the classifier stands, which
makes other networks agree. Coarse and fine structures of each part have coefficients of their own,
and fine ones cost more where the image is even, where they would be seen as ripples that the image
never had (docs/method.md).

Shapes: B images, C channels, H x W pixels, c classes, K basis images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dxai.explain.naive import divergence_from_uniform
from dxai.metrics.removal import UNDECIDED, neutrality, remove
from dxai.utils import keyed_random

Network = Callable[[Tensor], Tensor]
"""A classifier: images (B, C, H, W) to logits (B, c)."""

SMOOTH_DISTANCE, DISTANCE = 2.0, 0.5
"""Weights of the distance to x against the divergence from uniform, with and without noise."""
RIPPLES = 24.0
"""Weight of the mean absolute fine change against the distance, where the image is even."""
EVEN = 0.02
"""Mean absolute fine structure of the image, in its units, where that weight is halved."""
SPLIT, FINE = 1 / 32, 1 / 64
"""Deviations, in image heights, of the Gaussian that splits the basis into coarse and fine, and of
the one that leaves what counts as a fine change."""
SMOOTH_STEPS, STEPS, LAST_STEPS = 6, 10, 4
"""Steps with noise and without, and more where the classifier still decides, without `RIPPLES`."""
SMALLEST = 0.01
"""Mean square below which a direction of the basis counts less: noise is not to be amplified."""
LONGEST = 0.05
"""Longest step: root mean square of the change of the image, in its units."""
DEVIATIONS = (0.05, 0.1, 0.2, 0.3)
"""Noise that is tried; a classifier stands it if it keeps `KEPT` of the class's probability."""
KEPT = 0.8
LEVELS = 4
"""Points of the ray x - beta psi_1, 0 < beta <= 1, of which the most undecided is the start."""


class Projection(NamedTuple):
    """The class-distinct part (B, C, H, W), and the neutrality (B,) without it, in [0, 1]."""

    distinct: Tensor
    neutrality: Tensor


def project(
    classifier: Network,
    images: Tensor,
    target: Tensor,
    basis: Tensor,
    samples: Sequence[int],
    seed: int = 0,
) -> Projection:
    """Find the part of each image whose removal leaves the classifier undecided.

    Parameters
    ----------
    classifier : callable
        Differentiable, in eval mode.
    images : Tensor
        (B, C, H, W) in [-1, 1].
    target : Tensor
        (B,), the explained classes.
    basis : Tensor
        (B, K, C, H, W), what may be subtracted; the first is psi_1 of the explained class.
    samples : sequence of int
        B keys of the random draws, so that a result does not depend on the batch.
    seed : int
        The run's seed.
    """
    start = _most_undecided(classifier, images, basis[:, 0])
    components, first = _orthogonal(basis)
    deviation = _tolerated(classifier, images, target, samples, seed)
    noise = _noise(images, samples, seed, 1) * deviation[:, None, None, None] / 2
    structure = blurred(_fine(images).abs().mean(1, keepdim=True), SPLIT)
    even, fine = EVEN / (EVEN + structure), _fine(components)

    def agnostic(a: Tensor) -> Tensor:
        return images - _combined(a, components)

    def away(a: Tensor, image: Tensor, weight: float = RIPPLES) -> Tensor:
        ripples = (_combined(a, fine).abs() * even).mean((1, 2, 3))
        return distance(images, image) + weight * ripples

    def smooth(a: Tensor) -> Tensor:
        image = agnostic(a)
        both = divergence_from_uniform(classifier(torch.cat([image, image + noise])))
        return sum(both.chunk(2)) + SMOOTH_DISTANCE * away(a, image)

    def clean(a: Tensor, weight: float = RIPPLES) -> Tensor:
        image = agnostic(a)
        return divergence_from_uniform(classifier(image)) + DISTANCE * away(a, image, weight)

    @torch.no_grad()
    def reached(a: Tensor) -> Tensor:
        return neutrality(classifier(agnostic(a)).softmax(1))

    a = minimise(smooth, start[:, None] * first, SMOOTH_STEPS)
    a = minimise(clean, a, STEPS)
    found = reached(a)
    if (decided := found < UNDECIDED).any():
        further = minimise(lambda a: clean(a, weight=0), a, LAST_STEPS)
        a = torch.where(decided[:, None], further, a)
        found = reached(a)
    return Projection(_combined(a, components), found)


def minimise(loss: Callable[[Tensor], Tensor], a: Tensor, steps: int) -> Tensor:
    """Minimise one loss per row by BFGS, whose steps are halved where they do not descend.

    Parameters
    ----------
    loss : callable
        (B, n) to (B,), each row's loss depending on that row only.
    a : Tensor
        (B, n), the start.
    steps : int
        Evaluations after the first.

    Returns
    -------
    Tensor
        (B, n), nowhere worse than the start.
    """

    def evaluated(a: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            a = a.detach().requires_grad_()
            values = loss(a)
            (slopes,) = torch.autograd.grad(values.sum(), a)
        return values.detach(), slopes

    identity = torch.eye(a.shape[1]).to(a)
    inverse = identity.expand(len(a), -1, -1) * LONGEST
    value, slope = evaluated(a)
    share = torch.ones_like(value)
    for _ in range(steps):
        step = -(inverse @ slope[:, :, None])[:, :, 0]
        step = step * (LONGEST / step.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp(max=1)
        step = share[:, None] * step
        tried = a + step
        new_value, new_slope = evaluated(tried)
        change = new_slope - slope
        curvature = (step * change).sum(1)
        scale = 1 / curvature.clamp_min(1e-10)[:, None, None]
        left = identity - scale * step[:, :, None] * change[:, None]
        updated = left @ inverse @ left.mT + scale * step[:, :, None] * step[:, None]
        inverse = torch.where((curvature > 1e-10)[:, None, None], updated, inverse)
        better = new_value < value
        a = torch.where(better[:, None], tried, a)
        slope = torch.where(better[:, None], new_slope, slope)
        value = torch.where(better, new_value, value)
        share = torch.where(better, 1.0, share / 2)
    return a


def distance(u: Tensor, v: Tensor) -> Tensor:
    """d(u, v) = mean |u - v| + mean (u - v)^2 of each image (Eq. 7): (B, C, H, W) to (B,)."""
    return ((u - v).abs() + (u - v).square()).mean((1, 2, 3))


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Convolve images (..., H, W) with a Gaussian; its deviation is a share of H.

    Borders are reflected, so W must exceed three deviations. Below a sixth of a pixel nothing is
    changed.
    """
    pixels = deviation * images.shape[-2]
    reach = int(3 * pixels + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    taps = torch.exp(-0.5 * (offsets / pixels) ** 2)
    # Planes are channels of one image: as a batch of one channel they take much more memory.
    flat = F.pad(images.reshape(1, -1, *images.shape[-2:]), [reach] * 4, mode="reflect")
    planes = flat.shape[1]
    taps = (taps / taps.sum()).to(images.dtype).expand(planes, 1, -1)
    for kernel in (taps[..., None], taps[:, :, None]):
        flat = F.conv2d(flat, kernel, groups=planes)
    return flat.view_as(images)


def _fine(images: Tensor) -> Tensor:
    return images - blurred(images, FINE)


def _combined(a: Tensor, parts: Tensor) -> Tensor:
    return torch.einsum("bk,bkchw->bchw", a, parts)


def _orthogonal(basis: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of the basis, so that a step is as long as the change of the image.

    The parts of several classes are much alike; in their own coordinates their differences, which
    tell the classes apart, are reached only slowly. Components below `SMALLEST` stay small. Each
    part enters twice, coarse and fine, both divided by the size of the whole, so that what is
    faint in it is not amplified.

    Returns
    -------
    components : Tensor
        (B, 2 K, C, H, W), orthogonal, of root mean square 1 at most.
    first : Tensor
        (B, 2 K), the coefficients of the first basis image.
    """
    size = basis.square().mean((2, 3, 4), keepdim=True).sqrt().clamp_min(1e-6)
    coarse = blurred(basis, SPLIT)
    flat = (torch.cat([coarse, basis - coarse], 1) / torch.cat([size, size], 1)).flatten(2)
    components, first = [], []
    for one in flat:  # alone: a product of many matrices rounds by where each lies in memory
        own = one.clone()
        squares, vectors = torch.linalg.eigh(own @ own.mT / own.shape[1])
        scale = (squares.clamp_min(0) + SMALLEST).sqrt()
        components.append(vectors.mT @ own / scale[:, None])
        first.append((vectors[0] + vectors[basis.shape[1]]) * scale)
    found = torch.stack(components).unflatten(2, basis.shape[2:])
    return found, size[:, 0, :, 0, 0] * torch.stack(first)


@torch.no_grad()
def _most_undecided(classifier: Network, images: Tensor, part: Tensor) -> Tensor:
    """Beta (B,) of the best point of the ray."""
    betas = torch.linspace(0, 1, LEVELS + 1, device=images.device)[1:]
    points = remove(images, part, betas.tolist())
    entropies = [neutrality(classifier(point).softmax(1)) for point in points]
    return betas[torch.stack(entropies).argmax(0)]


@torch.no_grad()
def _tolerated(
    classifier: Network, images: Tensor, target: Tensor, samples: Sequence[int], seed: int
) -> Tensor:
    """Return the largest of `DEVIATIONS` that keeps each image's answer, (B,); else 0."""

    def probability(x: Tensor) -> Tensor:
        return classifier(x).softmax(1).gather(1, target[:, None])[:, 0]

    own = probability(images)
    tolerated, kept = torch.zeros_like(own), torch.ones_like(own, dtype=torch.bool)
    noise = _noise(images, samples, seed, 0)
    for deviation in DEVIATIONS:
        kept &= probability(images + deviation * noise) >= KEPT * own
        tolerated[kept] = deviation
    return tolerated


def _noise(images: Tensor, samples: Sequence[int], seed: int, draw: int) -> Tensor:
    size = tuple(images.shape[1:])
    return keyed_random.normal(seed, "projection noise", draw, samples, size).to(images)
