"""The data card: one self-contained page on what a prepared dataset holds and what was left out."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
from markupsafe import Markup
from PIL import Image

from dxai.datasets import images
from dxai.datasets.base import SPLITS
from dxai.datasets.statistics import Statistics
from dxai.paths import index_name
from dxai.utils.files import atomic

SHOWN = 16
"""Images of a class on its contact sheet."""
TILE = 64
"""Side of an image on a contact sheet, pixels; a larger image gets up to twice that."""
MOST_SIZES = 12
"""Sizes of image files that are shown by themselves."""


@dataclass(frozen=True)
class About:
    """What the layout knows of the source.

    Attributes
    ----------
    origin, licence : str
        Where the images come from, and on what terms.
    paper : (int, int) or None
        The paper's numbers of training (validation included) and test images (Table 5).
    """

    origin: str
    licence: str
    paper: tuple[int, int] | None = None


def write(path: Path, manifest: dict[str, Any], statistics: Statistics, about: About) -> None:
    """Write the card of the dataset whose shards lie beside `path`.

    Parameters
    ----------
    path : Path
        The page.
    manifest : dict
        As written to manifest.json.
    statistics : Statistics
        What was counted.
    about : About
        What is not in the images.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dxai.datasets", "."), autoescape=True, trim_blocks=True
    )
    counts, classes = statistics.counts, manifest["class_names"]
    totals = {split: sum(counts[split].values()) for split in SPLITS}
    page = environment.get_template("card.html.jinja").render(
        manifest=manifest,
        about=about,
        splits=SPLITS,
        classes=classes,
        counts=counts,
        totals=totals,
        before=_before(statistics),
        balance={name: sum(counts[split][name] for split in SPLITS) for name in classes},
        measured=(totals["train"] + totals["validation"], totals["test"]),
        sizes=_common_sizes(statistics.sizes),
        intensity={
            name: _bars({f"{8 * i}-{8 * i + 7}": int(n) for i, n in enumerate(histogram)})
            for name, histogram in statistics.intensity.items()
        },
        sheets={
            name: _data_uri(contact_sheet(path.parent, manifest["shards"], classes.index(name)))
            for name in classes
        },
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def contact_sheet(folder: Path, shards: Mapping[str, Sequence[str]], label: int) -> bytes:
    """Training images of a class, evenly over the split, as one PNG.

    Parameters
    ----------
    folder : Path
        A prepared dataset.
    shards : mapping
        Split to names of its shards, from the manifest.
    label : int
        Place of the class in the manifest's ``class_names``.
    """
    index = pq.read_table(
        folder / index_name("train"), columns=["label", "shard", "row_group"], use_threads=False
    )
    labels = index["label"].to_numpy()
    places = (labels == label).nonzero()[0]
    chosen = places[np.linspace(0, len(places) - 1, min(SHOWN, len(places))).astype(int)]
    groups = np.stack([index["shard"].to_numpy(), index["row_group"].to_numpy()], 1)
    tiles = []
    for place in chosen:
        shard, group = groups[place]
        first = int((groups == groups[place]).all(1).argmax())
        with pq.ParquetFile(folder / shards["train"][shard]) as file:
            column = file.read_row_group(int(group), ["image"], use_threads=False)["image"]
        tiles.append(_tile(images.decode(column[int(place) - first].as_py())))
    return _png(_grid(tiles))


def _tile(image: np.ndarray) -> np.ndarray:
    """An image enlarged by a whole number, or reduced, to about the size of a tile, in RGB."""
    side = image.shape[0]
    wanted = side * max(1, TILE // side) if side < 2 * TILE else 2 * TILE
    method = Image.Resampling.NEAREST if wanted > side else Image.Resampling.BICUBIC
    picture = Image.fromarray(image).convert("RGB").resize((wanted, wanted), method)
    return np.asarray(picture)


def _grid(tiles: Sequence[np.ndarray], gap: int = 2) -> np.ndarray:
    side, across = tiles[0].shape[0], min(8, len(tiles))
    down = math.ceil(len(tiles) / across)
    step = side + gap
    sheet = np.full((down * step - gap, across * step - gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // across * step, i % across * step
        sheet[top : top + side, left : left + side] = tile
    return sheet


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _before(statistics: Statistics) -> dict[str, dict[str, int]]:
    """Split (empty: not decided) to class (empty: none) to images before any was left out."""
    found: dict[str, Counter[str]] = {split: Counter() for split in (*SPLITS, "")}
    for split, counts in statistics.counts.items():
        found[split].update(counts)
    for (_, split, label), count in statistics.dropped.items():
        found[split][label] += count
    return {split: dict(counts) for split, counts in found.items()}


def _common_sizes(sizes: Counter[str]) -> dict[str, int]:
    """The most common sizes, the others together."""
    common = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:MOST_SIZES])
    rest = sum(sizes.values()) - sum(common.values())
    return common | ({f"{len(sizes) - len(common)} others": rest} if rest else {})


def _bars(values: Mapping[str, int]) -> Markup:
    """A histogram as a picture; each bar says what it stands for."""
    most = max(values.values(), default=0) or 1
    width, height = 100 / max(len(values), 1), 40
    bars = [
        Markup(
            '<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">'
            "<title>{}: {}</title></rect>"
        ).format(i * width, height * (1 - n / most), 0.9 * width, height * n / most, name, n)
        for i, (name, n) in enumerate(values.items())
    ]
    return Markup(
        '<svg viewBox="0 0 100 {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(height, f"{len(values)} bars, the highest {most}", Markup("").join(bars))
