"""Example images of each class beside every method's heatmap, as small pictures for a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dxai.datasets import ShardedDataset
from dxai.evaluate import removal, tiles
from dxai.evaluate.names import OURS, STYLES, style
from dxai.evaluate.results import Cell, read_attributions, true_class_probability


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
    own = read_attributions(cell.folder / f"{OURS}-{seed}")
    if OURS not in own:
        return []
    index = own["index"].astype(int)
    labels = data.labels[index]
    places = {int(label): int(np.argmax(labels == label)) for label in np.unique(labels)}
    images = data.batch(index[list(places.values())]).images
    panels = []
    for image, (label, place) in zip(images, places.items(), strict=True):
        columns = _own_columns(cell, image, own, place, int(index[place]), seed)
        columns += _method_columns(cell, image, int(index[place]))
        panels.append(Panel(data.class_names[label], data.ids[index[place]], columns))
    return panels


def _own_columns(
    cell: Cell, image: Tensor, own: dict[str, np.ndarray], place: int, at: int, seed: int
) -> list[Column]:
    """Input, and the parts of the decomposition."""
    distinct = own[OURS][place]
    change = _change(cell, OURS, f"{OURS}-{seed}", at)
    columns = [Column("Input", [Tile(tiles.png(tiles.picture(image.numpy())), "x", "the input")])]
    if "agnostic" in own:
        agnostic = tiles.png(tiles.picture(own["agnostic"][place]))
        tile = Tile(agnostic, "ψ agnostic", "the class-agnostic part")
        columns.append(Column("Class-agnostic", [tile], ours=True))
    columns.append(_part_column("Class-distinct", image, distinct, change, ours=True))
    if "reconstruction" in own:
        whole = tiles.png(tiles.picture(own["reconstruction"][place]))
        tile = Tile(whole, "x̂", "the reconstruction")
        columns.append(Column("Reconstruction", [tile], ours=True))
    return columns


def _method_columns(cell: Cell, image: Tensor, at: int) -> list[Column]:
    """Every other method that has an attribution of this image, in the table's order."""
    columns = []
    for method in STYLES:
        maps = read_attributions(cell.folder / method)
        sign = cell.primary(method)
        if method not in maps or sign is None or at not in maps["index"]:
            continue
        heat = maps[method][int(np.argmax(maps["index"] == at))]
        change = _change(cell, method, method, at)
        if sign == "part":
            columns.append(_part_column(style(method).label, image, heat, change))
        else:
            columns.append(_heat_column(style(method).label, image, heat, sign, change))
    return columns


def _part_column(
    title: str, image: Tensor, part: np.ndarray, change: str, ours: bool = False
) -> Column:
    scale = tiles.scale_of(part)
    return _column(title, image, part, part / scale, "ψ distinct", change, ours)


def _heat_column(title: str, image: Tensor, heat: np.ndarray, sign: str, change: str) -> Column:
    heatmap = torch.from_numpy(heat)[None]
    part = removal.part_from_heatmap(heatmap, image[None], sign)[0].numpy()
    weight = removal.part_from_heatmap(heatmap, torch.ones_like(heatmap), sign)[0].numpy()
    return _column(title, image, part, weight, "w·x", change, ours=False)


def _column(
    title: str,
    image: Tensor,
    part: np.ndarray,
    weight: np.ndarray,
    symbol: str,
    change: str,
    ours: bool,
) -> Column:
    scale = tiles.scale_of(part)
    shown = tiles.png(tiles.signed(part, scale))
    over = tiles.png(tiles.overlay(image.numpy(), weight))
    pictures = [
        Tile(shown, f"{symbol}, ±{scale:.2f}", f"{title}: what is removed, around mid-gray"),
        Tile(over, "overlay", f"{title}: over the input in gray"),
    ]
    return Column(title, pictures, change, ours)


def _change(cell: Cell, method: str, folder: str, at: int) -> str:
    """How the probability of the true class goes from beta = 0 to beta = 1."""
    sign = cell.primary(method) or ""
    by_beta = true_class_probability(cell.folder / folder, method, sign, [at]).get(at)
    if not by_beta:
        return ""
    return f"p {by_beta[min(by_beta)]:.2f} → {by_beta[max(by_beta)]:.2f}"
