"""The layouts of raw images by name."""

from __future__ import annotations

from dxai.datasets.base import Layout
from dxai.datasets.layouts import afhq, brats, celeba, dota, folder, fruits360, noise, textures

LAYOUTS: dict[str, Layout] = {
    "afhq": afhq.LAYOUT,
    "brats": brats.LAYOUT,
    "celeba": celeba.LAYOUT,
    "dota": dota.LAYOUT,
    "folder": folder.LAYOUT,
    "fruits360": fruits360.LAYOUT,
    "noise": noise.LAYOUT,
    "textures": textures.LAYOUT,
}
"""Valid values of a dataset's `layout`."""
