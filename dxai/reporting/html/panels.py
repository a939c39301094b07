"""Test images beside each method's maps, as small pictures for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.metrics import removal
from dxai.paths import MAPS, STABILITY_NAME, ours_name
from dxai.reporting import image_tiles
from dxai.reporting.html.case import Case, Maps, scored_images
from dxai.reporting.html.chart_data import CLASSES
from dxai.reporting.html.viewer import Explanation, Removal, make_view
from dxai.reporting.table_layouts import WORST, fixed
from dxai.results.claims import read_maps
from dxai.results.io import Row
from dxai.results.methods import NAIVE, ORDER, OURS, label
from dxai.types import NEUTRAL

DEVIATIONS = 3
"""Images whose maps of deviation are shown."""
NETWORKS = {"classifier": "beta", "twin": "transfer"}
"""Networks whose answers stand under a picture, and the curves that hold them."""
VIEWER_SIDE = 64
"""Largest side in pixels of a picture in a viewer: a report may have hundreds of them."""
ANSWERS = 3
"""Most probabilities of an answer that are shown: the image's class, then the most probable."""


@dataclass(frozen=True)
class Tile:
    """One picture, its caption, and its description in words."""

    image: bytes
    caption: str
    alt: str


@dataclass(frozen=True)
class Stack:
    """Pictures that belong together: one name, one or more tiles, and notes."""

    title: str
    tiles: list[Tile]
    notes: Sequence[str] = ()
    ours: bool = False


@dataclass(frozen=True)
class Panel:
    """One test image: a viewer with a slider, its parts, then further pictures."""

    title: str
    image_id: str
    stacks: list[Stack]
    viewer: dict[str, Any] | None = None


class Examples:
    """The pictures of one case, from the test split `data`."""

    def __init__(self, case: Case, data: ShardedDataset) -> None:
        self.case, self.data = case, data
        scored = scored_images(case.first)
        _, first = np.unique(data.labels[scored], return_index=True)
        self.at = [int(index) for index in scored[first][:CLASSES]]
        """The first scored image of each class: not chosen by how it looks."""
        self.worst_rows = case.tables["per_image"][:WORST]
        self.maps = Maps(case.folder, [*self.at, *(int(row["index"]) for row in self.worst_rows)])

    def methods(self) -> list[Panel]:
        """Show each image with its parts and every method's map."""
        best = self.case.best_baseline()
        return [
            self._panel(
                index,
                self._asked(index),
                *self._parts(index, NEUTRAL),
                *self._parts(index, OURS),
                self._reconstruction(index),
                *(self._of(m, m, index) for m in ORDER if m != OURS),
                beside=best["method"] if best else None,
            )
            for index in self.at
        ]

    def naive(self) -> list[Panel]:
        """Show Fig. 11: the naive optimisation's agnostic and distinct parts, beside ours."""
        panels = []
        for index in self.at[:2]:
            part = self.maps.of(NAIVE, NAIVE, index)
            if part is None or self.maps.of(self.case.first.name, OURS, index) is None:
                return []
            image = self._image(index).numpy()
            rest = _tile(image_tiles.picture(image - part), "x − ψ", "naive, agnostic")
            distinct = self._of(NAIVE, NAIVE, index, "Naive: distinct")
            naive = Stack("Naive: agnostic", [rest], self._answers(NAIVE, NAIVE, index)), distinct
            ours = self._parts(index, NEUTRAL)
            panels.append(self._panel(index, self._asked(index), *naive, *ours, beside=NAIVE))
        return panels

    def uncertainty(self) -> list[Panel]:
        """Show how far the class-distinct part depends on z."""
        panels = []
        for index in self.at:
            spread = self.maps.of(self.case.first.name, "spread", index)
            if spread is None:
                return []
            scale = image_tiles.scale_of(spread)
            tile = _tile(image_tiles.magnitude(spread, scale), f"0 to {scale:.2g}", "deviation")
            distinct = self._parts(index, OURS, overlaid=False)[1:2]
            stacks = _input(self._image(index)), *distinct, Stack("Deviation over z", [tile])
            panels.append(self._panel(index, *stacks))
        return panels

    def worst(self) -> list[Panel]:
        """Show the worst explained images, beside the best baseline on them."""
        panels = []
        for row in self.worst_rows:
            index, best = int(row["index"]), row["best_baseline"]
            kinds = [self._parts(index, kind, overlaid=False) for kind in (NEUTRAL, OURS)]
            parts = [stack for stacks in kinds for stack in stacks]
            if not parts:
                return []
            other = [self._of(best, best, index)] if best else []
            title = f"{row['class']}: area {fixed(row['ours'])}"
            title += f", {label(best)} {fixed(row['baseline'])}" if best else ""
            panels.append(self._panel(index, self._asked(index), *parts, *other, title=title))
        return panels

    def variants(self, rows: Sequence[Row]) -> list[Panel]:
        """Show Figs. 6, 12 and 14: the parts of each image under every ablation.

        `rows` are those of ablations.csv, the unchanged one first.
        """
        panels = []
        for index in self.at:
            stacks = [_input(self._image(index))]
            for k, row in enumerate(rows):
                name = ours_name(row["variant"]) if k else self.case.first.name
                parts = [*self._parts(index, OURS, name), self._reconstruction(index, name)]
                stacked = [tile for part in parts if part is not None for tile in part.tiles[:1]]
                note = f"AUC {fixed(row['auc'])}, PSNR {fixed(row['psnr_db'], 1)} dB"
                change = self._change(name, OURS, "part", index)
                if stacked:
                    title = row["variant"].replace("_", " ").capitalize()
                    stacks.append(Stack(title, stacked, [f"{change} · {note}"], not k))
            panels.append(self._panel(index, *stacks))
        return panels if any(len(panel.stacks) > 1 for panel in panels) else []

    def _panel(
        self, index: int, *stacks: Stack | None, title: str = "", beside: str | None = ""
    ) -> Panel:
        """Make a panel; with a viewer if `beside` is a method to compare with, or None."""
        title = title or self.data.class_names[int(self.data.labels[index])]
        shown = [stack for stack in stacks if stack is not None]
        viewer = None if beside == "" else self._viewer(index, title, beside)
        return Panel(title, self.data.ids[index], shown, viewer)

    def _viewer(self, index: int, title: str, beside: str | None) -> dict[str, Any] | None:
        """Let a slider remove our parts, and that of another method; None if none was scored."""
        first, class_name = self.case.first.name, self.data.class_names[self.data.labels[index]]
        known = [("neutral", first, NEUTRAL), ("generated", first, OURS)]
        known += [(label(beside), beside, beside)] if beside else []
        removals, levels = [], np.zeros(0)
        for kind, name, method in known:
            sign = "part" if name == first else self.case.primary(method)
            heat = self.maps.of(name, method, index)
            found = self.maps.answers(name, method, sign, index) if sign else None
            if heat is None or found is None or sign is None:
                continue
            part = heat if sign == "part" else self._weighted(index, heat, sign)[0]
            levels = found[0]
            removals.append(Removal(class_name, kind, part, found[1]))
        if not removals:
            return None
        image = self._image(index).numpy()
        explained = Explanation(title, image, removals, betas=levels.tolist())
        return make_view(explained, self.data.class_names, VIEWER_SIDE)

    def _image(self, index: int) -> Tensor:
        return self.data.batch([index]).images[0]

    def _asked(self, index: int) -> Stack:
        """Return the input and what the networks say of it."""
        first = self.case.first.name
        return replace(_input(self._image(index)), notes=self._answers(first, OURS, index, end=0))

    def _parts(
        self, index: int, kind: str, name: str | None = None, overlaid: bool = True
    ) -> list[Stack]:
        """Return an image's class-agnostic and class-distinct part; empty if they were not saved.

        `kind` is `NEUTRAL`, or `OURS` for the generator's; `name` is a decomposition's folder.
        """
        name = name or self.case.first.name
        part = self.maps.of(name, kind, index)
        if part is None:
            return []
        titles = "= Class-agnostic", "+ Class-distinct"
        if kind != NEUTRAL:
            titles = "Generated: agnostic", "Generated: distinct"
        rest = _tile(image_tiles.picture(self._image(index).numpy() - part), "x − ψ", titles[0])
        agnostic = Stack(titles[0], [rest], self._answers(name, kind, index), ours=True)
        change = self._change(name, kind, "part", index)
        distinct = self._part(titles[1], index, part, change, ours=True)
        if not overlaid:
            distinct = replace(distinct, tiles=distinct.tiles[:1])
        return [agnostic, distinct]

    def _reconstruction(self, index: int, name: str | None = None) -> Stack | None:
        """Return x_hat and the image less it; None if it was not saved."""
        found = self.maps.of(name or self.case.first.name, "reconstruction", index)
        if found is None:
            return None
        error = self._image(index).numpy() - found
        scale = image_tiles.scale_of(error)
        tiles = [
            _tile(image_tiles.picture(found), "x̂", "the reconstruction"),
            _tile(image_tiles.signed(error, scale), f"x − x̂, ±{scale:.2g}", "its error"),
        ]
        decibels = float(removal.psnr(torch.from_numpy(error)[None])[0])
        return Stack("Reconstruction, error", tiles, [f"PSNR {decibels:.1f} dB"], ours=True)

    def _answers(self, name: str, method: str, index: int, end: int = 1) -> list[str]:
        """Describe what each network says of the image (`end` 0) or of x - psi_distinct (1)."""
        notes, own = [], int(self.data.labels[index])
        for network, curve in NETWORKS.items():
            found = self.maps.answers(name, method, "part", index, curve)
            if found is None:
                continue
            answer = found[1][-end]
            others = [k for k in np.argsort(-answer, kind="stable").tolist() if k != own]
            shown = [f"{self.data.class_names[k]} {answer[k]:.2f}" for k in [own, *others]]
            undecided = float(removal.neutrality(torch.from_numpy(answer)[None])[0])
            line = f"{network}: {', '.join(shown[:ANSWERS])}"
            notes.append(line if not end else f"{line}; neutrality {undecided:.2f}")
        return notes

    def _change(self, name: str, method: str, sign: str, index: int) -> str:
        """Format the probability of an image's own class at beta = 0 and at beta = 1."""
        found, own = self.maps.answers(name, method, sign, index), int(self.data.labels[index])
        return "" if found is None else f"p {found[1][0, own]:.2f} → {found[1][-1, own]:.2f}"

    def _of(self, method: str, name: str, index: int, title: str = "") -> Stack | None:
        """Return a method's map, or None if it has none."""
        sign, heat = self.case.primary(method), self.maps.of(name, method, index)
        if heat is None or sign is None:
            return None
        title, change = title or label(method), self._change(name, method, sign, index)
        if sign == "part":
            return self._part(title, index, heat, change)
        part, weight = self._weighted(index, heat, sign)
        image = self._image(index).numpy()
        return Stack(title, _pair(title, "w·x", image, part, weight), [change])

    def _weighted(self, index: int, heat: np.ndarray, sign: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what a heatmap removes of an image, w·x, and w."""
        image, heatmap = self._image(index)[None], torch.from_numpy(heat)[None]
        part = removal.distinct_from_heatmap(heatmap, image, sign)[0].numpy()
        ones = torch.ones_like(heatmap)
        return part, removal.distinct_from_heatmap(heatmap, ones, sign)[0].numpy()

    def _part(
        self, title: str, index: int, part: np.ndarray, note: str, ours: bool = False
    ) -> Stack:
        weight, image = part / image_tiles.scale_of(part), self._image(index).numpy()
        return Stack(title, _pair(title, "ψ distinct", image, part, weight), [note], ours)


def deviations(case: Case, data: ShardedDataset) -> list[Panel]:
    """Show where seeds disagree (Table 4), step by step, each image on one scale."""
    folder = case.folder / STABILITY_NAME
    if not (folder / MAPS).is_file():
        return []
    with np.load(folder / MAPS) as file:
        by_step = {int(name.removeprefix("step-")): file[name] for name in file.files}
    shown = min(DEVIATIONS, len(next(iter(by_step.values()))))
    panels = []
    for row, index in enumerate(read_maps(folder)["index"].drop_duplicates()[:shown].tolist()):
        stacks = [_input(data.batch([index]).images[0])]
        scale = max(image_tiles.scale_of(maps[row].mean(0)) for maps in by_step.values())
        for step, maps in sorted(by_step.items()):
            pixels = image_tiles.magnitude(maps[row], scale)
            alt = f"deviation over seeds after {step:,} steps"
            stacks.append(
                Stack(f"{step:,} steps", [_tile(pixels, f"mean {maps[row].mean():.3f}", alt)])
            )
        title = f"{data.class_names[int(data.labels[index])]}, white {scale:.2g}"
        panels.append(Panel(title, data.ids[index], stacks))
    return panels


def _pair(
    title: str, symbol: str, image: np.ndarray, part: np.ndarray, weight: np.ndarray
) -> list[Tile]:
    """Return the part that a method removes, and its weight over the image."""
    scale = image_tiles.scale_of(part)
    removed = f"{title}: what is removed, around mid-gray"
    return [
        _tile(image_tiles.signed(part, scale), f"{symbol}, ±{scale:.2g}", removed),
        _tile(image_tiles.overlay(image, weight), "overlay", f"{title}: over the input in gray"),
    ]


def _input(image: Tensor) -> Stack:
    return Stack("Input", [_tile(image_tiles.picture(image.numpy()), "x", "the input")])


def _tile(pixels: np.ndarray, caption: str, alt: str) -> Tile:
    return Tile(image_tiles.encoded(pixels), caption, alt)
