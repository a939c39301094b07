"""Test images beside what methods make of them, as small pictures for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.metrics import removal
from dxai.paths import MAPS, STABILITY_NAME, ours_name
from dxai.reporting import image_tiles
from dxai.reporting.html.charts import CLASSES
from dxai.reporting.html.results import Cell, Maps, scored_images
from dxai.reporting.table_layouts import WORST, Row, fixed, plain
from dxai.results.claims import read_maps
from dxai.results.methods import NAIVE, OURS, STYLES, style

DEVIATIONS = 3
"""Images whose maps of deviation are shown."""
PARTS = (("agnostic", "Class-agnostic", "ψ agnostic"), ("reconstruction", "Sum of the parts", "x̂"))


@dataclass(frozen=True)
class Tile:
    """One picture, what is said under it, and in words what it shows."""

    image: bytes
    caption: str
    alt: str


@dataclass(frozen=True)
class Column:
    """Pictures that belong together: one name, one or more tiles, and a note."""

    title: str
    tiles: list[Tile]
    note: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """One test image: its parts, then what else is shown of it."""

    title: str
    image_id: str
    columns: list[Column]


class Examples:
    """The pictures of one dataset and classifier.

    Parameters
    ----------
    cell : Cell
    data : ShardedDataset
        Its test split.
    """

    def __init__(self, cell: Cell, data: ShardedDataset) -> None:
        self.cell, self.data = cell, data
        index = scored_images(cell.first)
        labels, first = np.unique(data.labels[index], return_index=True)
        self.labels = [int(label) for label in labels[:CLASSES]]
        self.at = [int(place) for place in index[first][:CLASSES]]
        """The first scored image of each class: not chosen by how it looks."""
        self.worst_rows = cell.tables["per_image"][:WORST]
        self.maps = Maps(cell.folder, [*self.at, *(int(row["index"]) for row in self.worst_rows)])

    def methods(self) -> list[Panel]:
        """Each image with its parts and every method's map."""
        return [
            self._panel(
                label,
                place,
                [
                    self._input(place),
                    *self._parts(place),
                    *(self._of(m, m, place) for m in STYLES if m != OURS),
                ],
            )
            for label, place in zip(self.labels, self.at, strict=True)
        ]

    def naive(self) -> list[Panel]:
        """Fig. 11: what the naive optimisation calls agnostic and distinct, beside ours."""
        panels = []
        for label, place in list(zip(self.labels, self.at, strict=True))[:2]:
            part = self._map(NAIVE, NAIVE, place)
            if part is None or self._map(self.cell.first.name, OURS, place) is None:
                return []
            image = self._image(place).numpy()
            rest = Tile(
                image_tiles.encoded(image_tiles.picture(image - part)), "x − ψ", "naive, agnostic"
            )
            columns: list[Column | None] = [self._input(place), Column("Naive: agnostic", [rest])]
            columns += [self._of(NAIVE, NAIVE, place, "Naive: distinct"), *self._parts(place)[:2]]
            panels.append(self._panel(label, place, columns))
        return panels

    def uncertainty(self) -> list[Panel]:
        """How far the class-distinct part depends on z."""
        panels = []
        for label, place in zip(self.labels, self.at, strict=True):
            spread = self._map(self.cell.first.name, "spread", place)
            if spread is None:
                return []
            scale = image_tiles.scale_of(spread)
            shown = image_tiles.encoded(image_tiles.magnitude(spread, scale))
            column = Column("Deviation over z", [Tile(shown, f"0 to {scale:.2g}", "deviation")])
            columns = [self._input(place), *self._parts(place, overlaid=False)[1:2], column]
            panels.append(self._panel(label, place, columns))
        return panels

    def worst(self) -> list[Panel]:
        """The worst explained images, beside the best baseline on them."""
        panels = []
        for row in self.worst_rows:
            place, best = int(row["index"]), row["best_baseline"]
            parts = self._parts(place, overlaid=False)
            if not parts:
                return []
            columns: list[Column | None] = [self._input(place), *parts]
            columns += [self._of(best, best, place)] if best else []
            title = f"{row['class']}: area {fixed(row['ours'])}"
            title += f", {style(best).label} {fixed(row['baseline'])}" if best else ""
            panels.append(Panel(title, row["id"], [c for c in columns if c is not None]))
        return panels

    def variants(self, rows: Sequence[Row]) -> list[Panel]:
        """Figs. 6, 12 and 14: the parts of each image under every ablation.

        Parameters
        ----------
        rows : sequence of dict
            Those of ablations.csv: first the one in which nothing is changed.
        """
        panels = []
        for label, place in zip(self.labels, self.at, strict=True):
            columns: list[Column | None] = [self._input(place)]
            for k, row in enumerate(rows):
                name = ours_name(row["variant"]) if k else self.cell.first.name
                parts = self._parts(place, name)
                stacked = [tile for part in parts for tile in part.tiles[:1]]
                note = f"AUC {fixed(row['auc'])}, PSNR {fixed(row['psnr_db'], 1)} dB"
                change = self.maps.change(name, OURS, "part", place)
                if stacked:
                    title = plain(row["variant"]).capitalize()
                    columns.append(Column(title, stacked, f"{change} · {note}", not k))
            panels.append(self._panel(label, place, columns))
        return panels if any(len(panel.columns) > 1 for panel in panels) else []

    def _panel(self, label: int, place: int, columns: Sequence[Column | None]) -> Panel:
        shown = [column for column in columns if column is not None]
        return Panel(self.data.class_names[label], self.data.ids[place], shown)

    def _image(self, place: int) -> Tensor:
        return self.data.batch([place]).images[0]

    def _map(self, name: str, key: str, place: int) -> np.ndarray | None:
        found = self.maps.of(name, key, [place])
        return None if found is None else found[0]

    def _input(self, place: int) -> Column:
        image = self._image(place).numpy()
        return Column(
            "Input", [Tile(image_tiles.encoded(image_tiles.picture(image)), "x", "the input")]
        )

    def _parts(self, place: int, name: str | None = None, overlaid: bool = True) -> list[Column]:
        """Class-agnostic, class-distinct, and their sum; nothing if they were not kept."""
        name = name or self.cell.first.name
        distinct = self._map(name, OURS, place)
        if distinct is None:
            return []
        columns = []
        for key, title, symbol in PARTS:
            part = self._map(name, key, place)
            if part is not None:
                shown = Tile(image_tiles.encoded(image_tiles.picture(part)), symbol, title)
                columns.append(Column(title, [shown], ours=True))
        change = self.maps.change(name, OURS, "part", place)
        part_of = self._part("Class-distinct", place, distinct, change, ours=True)
        if not overlaid:
            part_of = replace(part_of, tiles=part_of.tiles[:1])
        return [*columns[:1], part_of, *columns[1:]]

    def _of(self, method: str, name: str, place: int, title: str = "") -> Column | None:
        """A method's map, or nothing if it has none."""
        sign, heat = self.cell.primary(method), self._map(name, method, place)
        if heat is None or sign is None:
            return None
        title, change = title or style(method).label, self.maps.change(name, method, sign, place)
        if sign == "part":
            return self._part(title, place, heat, change)
        image, heatmap = self._image(place), torch.from_numpy(heat)[None]
        part = removal.part_from_heatmap(heatmap, image[None], sign)[0].numpy()
        ones = torch.ones_like(heatmap)
        weight = removal.part_from_heatmap(heatmap, ones, sign)[0].numpy()
        return Column(title, _pair(title, "w·x", image.numpy(), part, weight), change)

    def _part(
        self, title: str, place: int, part: np.ndarray, note: str, ours: bool = False
    ) -> Column:
        weight, image = part / image_tiles.scale_of(part), self._image(place).numpy()
        return Column(title, _pair(title, "ψ distinct", image, part, weight), note, ours)


def deviations(cell: Cell, data: ShardedDataset) -> list[Panel]:
    """Table 4: where seeds disagree, step by step, each image on one scale."""
    folder = cell.folder / STABILITY_NAME
    shown = _stability(folder)
    panels = []
    for row, place in enumerate(_first_images(folder)):
        image = data.batch([place]).images[0].numpy()
        columns = [
            Column(
                "Input", [Tile(image_tiles.encoded(image_tiles.picture(image)), "x", "the input")]
            )
        ]
        scale = max(image_tiles.scale_of(maps[row].mean(0)) for maps in shown.values())
        for step, maps in shown.items():
            tile = image_tiles.encoded(image_tiles.magnitude(maps[row], scale))
            caption = f"mean {maps[row].mean():.3f}"
            alt = f"deviation over seeds after {step:,} steps"
            columns.append(Column(f"{step:,} steps", [Tile(tile, caption, alt)]))
        title = f"{data.class_names[int(data.labels[place])]}, white {scale:.2g}"
        panels.append(Panel(title, data.ids[place], columns))
    return panels


def _stability(folder: Path) -> dict[int, np.ndarray]:
    """Step to the deviations (N, C, H, W) of some images."""
    if not (folder / MAPS).is_file():
        return {}
    with np.load(folder / MAPS) as file:
        found = {int(name.removeprefix("step-")): file[name] for name in file.files}
    return dict(sorted(found.items()))


def _first_images(folder: Path) -> list[int]:
    """Places in the test split of the images that `_stability` has maps of."""
    shown = _stability(folder)
    if not shown:
        return []
    index = read_maps(folder)["index"].drop_duplicates()
    return [int(place) for place in index[: min(DEVIATIONS, len(next(iter(shown.values()))))]]


def _pair(
    title: str, symbol: str, image: np.ndarray, part: np.ndarray, weight: np.ndarray
) -> list[Tile]:
    """What a method removes, and where it looks."""
    scale = image_tiles.scale_of(part)
    return [
        Tile(
            image_tiles.encoded(image_tiles.signed(part, scale)),
            f"{symbol}, ±{scale:.2g}",
            f"{title}: what is removed, around mid-gray",
        ),
        Tile(
            image_tiles.encoded(image_tiles.overlay(image, weight)),
            "overlay",
            f"{title}: over the input in gray",
        ),
    ]
