"""Sample of BraTS: drawn brains with one tumour each, in some slices, as NIfTI files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from dxai.datasets.samples.drawing import ellipse, grid, noise
from dxai.utils import keyed_random

CASES, SIDE, SLICES = 80, 96, 16
"""Many patients of few slices each, since intervals resample patients."""
ORIENTATIONS = ("LPS", "RAS", "LAS", "PIR")
"""Axis codes of the stored arrays, case by case; in the last, slices are not the third axis."""


def render_sample(folder: Path, options: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Write `BraTS-DRAWN-00001/BraTS-DRAWN-00001_flair.nii.gz` and `.._seg.nii.gz` ..

    A brain is an ellipsoid with folds towards its rim, and two ventricles. The tumour, in about a
    third of the slices, is brighter than everything else: oedema (2), and within it an enhancing
    ring (4) and a core (1). Slices with and without tumour differ in nothing else.
    """
    for i in range(CASES):
        rng = keyed_random.generator(seed, "samples/brats", 0, i)
        flair, seg = _case(rng)
        name = f"BraTS-DRAWN-{i + 1:05d}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        _save(folder / name / f"{name}_flair.nii.gz", flair, ORIENTATIONS[i % 4])
        _save(folder / name / f"{name}_seg.nii.gz", seg, ORIENTATIONS[i % 4])


def _case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw FLAIR and segmentation, both (x, y, z) towards right, anterior, superior."""
    at = grid((SIDE, SIDE))
    centre = tuple(SIDE / 2 + rng.uniform(-3, 3, 2))
    radii = rng.uniform(34, 38), rng.uniform(40, 44)
    folds, blur = _volume_noise(rng, 8), _volume_noise(rng, 24)
    wave, shade, tall = rng.uniform(1.5, 2.5), rng.uniform(0.9, 1.1), rng.uniform(8, 14)
    # The tumour: its position in the brain, half its height in slices, and its radius.
    position, middle = rng.uniform(-0.4, 0.4, 2), rng.uniform(0.3, 0.7) * SLICES
    height, radius = rng.uniform(2.5, 3.25), rng.uniform(10, 14)
    bumps = _volume_noise(rng, 12)
    flair = np.zeros((SLICES, SIDE, SIDE), dtype=np.float32)
    seg = np.zeros((SLICES, SIDE, SIDE), dtype=np.uint8)
    for z in range(SLICES):
        t = (z + 0.5 - SLICES / 2) / (SLICES / 2)
        scale = np.sqrt(1 - t**4)  # area 1 - t^4: most slices have a full cross-section
        size = radii[0] * scale, radii[1] * scale
        brain = ellipse(at, centre, size)
        rim = np.hypot((at[0] - centre[0]) / size[0], (at[1] - centre[1]) / size[1])
        cortex = np.clip(4 * (rim - 0.65), 0, 1) * (0.5 + 0.5 * np.sin(3 * wave * folds[z]))
        value = 360 + 130 * cortex + 15 * blur[z]
        for side in (-1, 1):
            middle_line = centre[0] + side * 6 * scale, centre[1]
            ventricle = ellipse(at, middle_line, (3.5, tall * scale), side * 0.2)
            value = value + ventricle * (120 - value)
        rise = 1 - ((z - middle) / height) ** 4
        if rise > 0:
            x, y = centre + position * size
            reach = np.hypot(at[0] - x, at[1] - y) / (radius * np.sqrt(rise)) + 0.18 * bumps[z]
            inside = brain > 0.99
            for label, limit, bright in ((2, 1.0, 780), (4, 0.65, 900), (1, 0.4, 640)):
                part = (reach < limit) & inside
                seg[z][part] = label
                value = np.where(part, bright, value)
        flair[z] = brain * shade * (value + rng.normal(0, 8, value.shape))
    # Rows run from front to back; the arrays of a volume start at the left, back and bottom.
    return flair[:, ::-1].transpose(2, 1, 0), seg[:, ::-1].transpose(2, 1, 0)


def _volume_noise(rng: np.random.Generator, cell: int) -> np.ndarray:
    """Draw smooth noise (z, y, x) for every eighth slice, and interpolate between them."""
    keys = np.stack([noise(rng, (SIDE, SIDE), cell) for _ in range(SLICES // 8 + 1)])
    z = np.arange(SLICES) / 8
    low, part = z.astype(int), (z % 1)[:, None, None]
    return keys[low] * (1 - part) + keys[low + 1] * part


def _save(path: Path, volume: np.ndarray, orientation: str) -> None:
    """Store a volume, given as RAS, with its axes in another order or direction."""
    kind = np.uint8 if volume.dtype == np.uint8 else np.int16
    image = nib.Nifti1Image(np.rint(volume).astype(kind), np.diag([2.0, 2.0, 4.0, 1.0]))
    nib.save(image.as_reoriented(_steps(orientation)), path)


def _steps(orientation: str) -> np.ndarray:
    here = nib.orientations.axcodes2ornt("RAS")
    return nib.orientations.ornt_transform(here, nib.orientations.axcodes2ornt(orientation))
