"""Example images of each class beside every method's heatmap, as small pictures for a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dxai.datasets import ShardedDataset
from dxai.evaluate import removal, tiles
from dxai.evaluate.names import OURS, STYLES, style
from dxai.evaluate.report.results import (
    Cell,
    read_attributions,
    scored_images,
    true_class_probability,
)


@dataclass(frozen=True)
class Tile:
    """One picture (PNG), what is said under it, and in words what it shows."""

    png: bytes
    caption: str
    alt: str


@dataclass(frozen=True)
class Column:
    """Pictures that belong together: one name, one or two tiles, and a note."""

    title: str
    tiles: list[Tile]
    note: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """One test image: its parts, then each method's."""

    class_name: str
    image_id: str
    columns: list[Column]


def build_panels(cell: Cell, data: ShardedDataset, seed: int) -> list[Panel]:
    """The first scored test image of each class: not chosen by how it looks."""
    index = scored_images(cell.folder / f"{OURS}-{seed}")
    labels, first = np.unique(data.labels[index], return_index=True)
    at = [int(place) for place in index[first]]
    if not at:
        return []
    images = data.batch(at).images
    columns = [_input(images), *_ours(cell, images, at, seed)]
    for method in STYLES:
        if method != OURS:
            columns.append(_of_method(cell, method, images, at))
    return [
        Panel(data.class_names[label], data.ids[place], [c[i] for c in columns if c])
        for i, (label, place) in enumerate(zip(labels, at, strict=True))
    ]


def _input(images: Tensor) -> list[Column]:
    shown = [Tile(tiles.png(tiles.picture(image.numpy())), "x", "the input") for image in images]
    return [Column("Input", [tile]) for tile in shown]


def _ours(cell: Cell, images: Tensor, at: list[int], seed: int) -> list[list[Column]]:
    """The parts of the decomposition: for each of them, a column an image."""
    folder = cell.folder / f"{OURS}-{seed}"
    maps = read_attributions(folder, at)
    if OURS not in maps:
        return []
    changes = _changes(cell, OURS, folder.name, at)
    distinct = [
        _part_column("Class-distinct", image, part, change, ours=True)
        for image, part, change in zip(images, maps[OURS], changes, strict=True)
    ]
    whole = {
        "agnostic": ("Class-agnostic", "ψ agnostic"),
        "reconstruction": ("Sum of the parts", "x̂"),
    }
    agnostic, reconstruction = (
        [
            Column(title, [Tile(tiles.png(tiles.picture(part)), symbol, title)], ours=True)
            for part in maps.get(name, ())
        ]
        for name, (title, symbol) in whole.items()
    )
    return [agnostic, distinct, reconstruction]


def _of_method(cell: Cell, method: str, images: Tensor, at: list[int]) -> list[Column]:
    """A column an image, or none if the method has no attributions."""
    maps, sign = read_attributions(cell.folder / method, at), cell.primary(method)
    if method not in maps or sign is None:
        return []
    title, changes = style(method).label, _changes(cell, method, method, at)
    rows = zip(images, maps[method], changes, strict=True)
    if sign == "part":
        return [_part_column(title, *row) for row in rows]
    return [_heat_column(title, image, heat, change, sign) for image, heat, change in rows]


def _part_column(
    title: str, image: Tensor, part: np.ndarray, note: str, ours: bool = False
) -> Column:
    weight = part / tiles.scale_of(part)
    return Column(title, _pair(title, "ψ distinct", image, part, weight), note, ours)


def _heat_column(title: str, image: Tensor, heat: np.ndarray, note: str, sign: str) -> Column:
    heatmap = torch.from_numpy(heat)[None]
    part = removal.part_from_heatmap(heatmap, image[None], sign)[0].numpy()
    weight = removal.part_from_heatmap(heatmap, torch.ones_like(heatmap), sign)[0].numpy()
    return Column(title, _pair(title, "w·x", image, part, weight), note)


def _pair(
    title: str, symbol: str, image: Tensor, part: np.ndarray, weight: np.ndarray
) -> list[Tile]:
    """What a method removes, and where it looks."""
    scale = tiles.scale_of(part)
    return [
        Tile(
            tiles.png(tiles.signed(part, scale)),
            f"{symbol}, ±{scale:.2g}",
            f"{title}: what is removed, around mid-gray",
        ),
        Tile(
            tiles.png(tiles.overlay(image.numpy(), weight)),
            "overlay",
            f"{title}: over the input in gray",
        ),
    ]


def _changes(cell: Cell, method: str, folder: str, at: list[int]) -> list[str]:
    """How each image's probability of its own class goes from beta = 0 to beta = 1."""
    sign = cell.primary(method) or ""
    found = true_class_probability(cell.folder / folder, method, sign, at)
    by_beta = [found.get(place) for place in at]
    return [f"p {p[min(p)]:.2f} → {p[max(p)]:.2f}" if p else "" for p in by_beta]
