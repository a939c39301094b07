"""The losses of the decomposition, all means over the batch.

Shapes: B images, C channels, H x W pixels, c classes; `heads` are logits of the discriminator.
Equation numbers are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def adversarial_real(head: Tensor) -> Tensor:
    """-log sigma(D_y(x)) for head (B,): the discriminator's half of Eq. 10 on real images.

    On blends it is the generator's non-saturating loss.
    """
    return F.softplus(-head).mean()


def adversarial_fake(head: Tensor) -> Tensor:
    """-log(1 - sigma(D_y(x_hat))) for head (B,): the discriminator's half of Eq. 10 on blends."""
    return F.softplus(head).mean()


def distribution_kl(heads: Tensor, logits: Tensor, direction: str = "d_c") -> Tensor:
    """KL(D||C) between class distributions on real images (Eq. 11), or KL(C||D) for ``c_d``.

    Parameters
    ----------
    heads, logits : Tensor
        (B, c), of the discriminator D and of the classifier C; the latter gets no gradient.
    direction : {'d_c', 'c_d'}
        Starts with the distribution that is averaged over: D or C.
    """
    log_d, log_c = heads.log_softmax(1), logits.detach().log_softmax(1)
    if direction == "d_c":
        return (log_d.exp() * (log_d - log_c)).sum(1).mean()
    return (log_c.exp() * (log_c - log_d)).sum(1).mean()


def class_fake(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the classifier on blends (Eq. 6); logits (B, c), target (B,)."""
    return F.cross_entropy(logits, target)


def distance(u: Tensor, v: Tensor) -> Tensor:
    """d(u, v) = mean |u - v| + mean (u - v)^2 (Eq. 7, per pixel)."""
    return (u - v).abs().mean() + (u - v).square().mean()


def reconstruction(x: Tensor, blend_y: Tensor, blend_other: Tensor) -> Tensor:
    """L_rec = d(x, x_hat^y) + d(x, x_hat^y~) (Eq. 8)."""
    return distance(x, blend_y) + distance(x, blend_other)


def distinct_reconstruction(
    x: Tensor,
    blend_y: Tensor,
    distinct: Tensor,
    over: str = "image",
    mean_over_workers: Callable[[Tensor], Tensor] = lambda value: value,
) -> Tensor:
    """L_dis-rec (Eq. 12): d(x, x_hat^y) over the pixels where |psi_distinct^y| exceeds its mean.

    Parameters
    ----------
    x, blend_y, distinct : Tensor
        (B, C, H, W); the mean of |psi_distinct^y| is taken per image and channel.
    over : {'image', 'batch'}
        Divide by the mask's size per image and average, independently of how a batch is split, or
        by its size over the whole batch.
    mean_over_workers : callable
        For ``batch``: the mean of a scalar over all workers sharing the batch.

    Returns
    -------
    Tensor
        Scalar; an empty mask contributes 0.
    """
    size = distinct.detach().abs()
    mask = (size > size.mean((2, 3), keepdim=True)).to(x.dtype)
    error = (x - blend_y).abs() + (x - blend_y).square()
    if over == "batch":
        return (error * mask).sum() / mean_over_workers(mask.sum()).clamp(min=1e-6)
    return ((error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)).mean()


def agnostic_reconstruction(x: Tensor, distinct: Tensor, agnostic: Tensor) -> Tensor:
    """d(x - psi_distinct^y, the sum of the agnostic branches), with psi_distinct detached.

    Not in the paper: by Eqs. 8 and 12 psi_distinct, too, answers for what x_hat misses, at the cost
    of what is class-distinct. Here only the mapping network, which styles all branches, passes a
    gradient on to it. Arguments are (B, C, H, W).
    """
    return distance(x - distinct.detach(), agnostic)


def neutrality(logits: Tensor) -> Tensor:
    """Cross-entropy of the uniform distribution and C(x - psi_distinct) above its minimum.

    Definition 1 of the paper; 0 where the classifier is undecided. logits (B, c).
    """
    return -logits.log_softmax(1).mean() - math.log(logits.shape[1])


def r1_penalty(head: Tensor, x: Tensor) -> Tensor:
    """1/2 ||grad_x D_y(x)||^2 per image, averaged (Mescheder et al. 2018).

    Parameters
    ----------
    head : Tensor
        (B,), the discriminator's output for the images.
    x : Tensor
        (B, C, H, W), with `requires_grad`.
    """
    (gradient,) = torch.autograd.grad(head.sum(), x, create_graph=True)
    return 0.5 * gradient.square().sum((1, 2, 3)).mean()
