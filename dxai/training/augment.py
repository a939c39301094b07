"""Random changes of training images, keyed by step and position in the global batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dxai.config.schema import AugmentParams
from dxai.utils import keyed_random


def change(params: AugmentParams, images: Tensor, seed: int, step: int, samples: range) -> Tensor:
    """Apply all changes that are set."""
    images = crop(images, params.crop, seed, step, samples)
    images = jitter(images, params.jitter, seed, step, samples)
    images = blur(images, params.blur, seed, step, samples)
    return add_noise(images, params.noise, seed, step, samples)


def flip(images: Tensor, seed: int, step: int, samples: range | None = None) -> Tensor:
    """Mirror each image (B, C, H, W) with probability one half.

    Here and below, `samples` are positions in the global batch; default: all of it.
    """
    mirrored = keyed_random.uniform(seed, "flip", step, samples or range(len(images))) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def add_noise(
    images: Tensor, strength: float, seed: int, step: int, samples: range | None = None
) -> Tensor:
    """Add white Gaussian noise of deviation uniform in [0, strength] to each image (B, C, H, W).

    Nothing is clipped, so a clean and a noisy image differ by the noise alone.
    """
    if strength == 0:
        return images
    samples = samples or range(len(images))
    deviation = strength * keyed_random.uniform(seed, "noise strength", step, samples)
    noise = keyed_random.normal(seed, "noise", step, samples, tuple(images.shape[1:]))
    return images + deviation[:, None, None, None] * noise


def lower_contrast(
    images: Tensor, strength: float, seed: int, step: int, samples: range | None = None
) -> Tensor:
    """Multiply each image (B, C, H, W) by a factor uniform in [1 - strength, 1]."""
    if strength == 0:
        return images
    drawn = keyed_random.uniform(seed, "contrast", step, samples or range(len(images)))
    return images * (1 - strength * drawn)[:, None, None, None]


def crop(
    images: Tensor, smallest: float, seed: int, step: int, samples: range | None = None
) -> Tensor:
    """Enlarge a random square of each image (B, C, H, W), its side a share in [smallest, 1].

    Bilinear; the square lies anywhere within the image.
    """
    if smallest == 1:
        return images
    drawn = keyed_random.uniform(seed, "crop", step, samples or range(len(images)), (3,))
    side = 1 - (1 - smallest) * drawn[:, 0]
    centre = (1 - side)[:, None] * (2 * drawn[:, 1:] - 1)  # of [-1, 1]
    corners = torch.cat([side[:, None, None] * torch.eye(2), centre[:, :, None]], 2)
    grid = F.affine_grid(corners, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def jitter(
    images: Tensor, strength: float, seed: int, step: int, samples: range | None = None
) -> Tensor:
    """Change brightness, contrast and saturation of each image (B, C, H, W) in [-1, 1].

    Brightness moves by up to `strength`; contrast about the image's mean and saturation about each
    pixel's gray change by a factor uniform in [1 - strength, 1 + strength].
    """
    if strength == 0:
        return images
    drawn = keyed_random.uniform(seed, "jitter", step, samples or range(len(images)), (3, 1, 1, 1))
    brightness, contrast, saturation = (strength * (2 * drawn - 1)).unbind(1)
    mean, gray = images.mean((1, 2, 3), keepdim=True), images.mean(1, keepdim=True)
    changed = mean + (1 + contrast) * ((gray - mean) + (1 + saturation) * (images - gray))
    return (changed + brightness).clamp(-1, 1)


def blur(
    images: Tensor, largest: float, seed: int, step: int, samples: range | None = None
) -> Tensor:
    """Blur half of the images (B, C, H, W); the deviation is uniform in (0, largest] pixels."""
    if largest == 0:
        return images
    drawn = keyed_random.uniform(seed, "blur", step, samples or range(len(images)), (2,))
    deviation = largest * drawn[:, :1].clamp(min=1e-3)
    reach = math.ceil(2 * largest)
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (offsets / deviation) ** 2)
    taps /= taps.sum(1, keepdim=True)
    pixels = F.pad(images, [reach] * 4, mode="reflect").transpose(0, 1)  # C, B: a kernel an image
    for kernel in (taps[:, None, :, None], taps[:, None, None, :]):
        pixels = F.conv2d(pixels, kernel, groups=len(images))
    return torch.where(drawn[:, 1, None, None, None] < 0.5, pixels.transpose(0, 1), images)
