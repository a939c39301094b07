"""Data card: a self-contained page on a prepared dataset's contents and the images left out."""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow.parquet as pq
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
GAP = 2
"""Pixels between two images on a contact sheet."""
MOST_SIZES = 12
"""Number of image file sizes listed separately."""


def write(
    path: Path, manifest: dict[str, Any], statistics: Statistics, about: dict[str, Any]
) -> None:
    """Write the card of the dataset in the folder of `path`.

    `about` has ``origin``, ``licence``, and as ``paper`` the paper's numbers of training
    (validation included) and test images (Table 5).
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
        intensity={name: counts.tolist() for name, counts in statistics.intensity.items()},
        sheets={
            name: base64.b64encode(contact_sheet(path.parent, manifest["shards"], label)).decode()
            for label, name in enumerate(classes)
        },
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def contact_sheet(folder: Path, shards: Mapping[str, Sequence[str]], label: int) -> bytes:
    """Evenly spaced training images of a class, as one PNG.

    `folder` is a prepared dataset, and `shards` (split to names) is from its manifest.
    """
    index = pq.read_table(
        folder / index_name("train"), columns=["label", "shard", "row_group"], use_threads=False
    )
    indices = (index["label"].to_numpy() == label).nonzero()[0]
    chosen = indices[np.linspace(0, len(indices) - 1, min(SHOWN, len(indices))).astype(int)]
    groups = np.stack([index["shard"].to_numpy(), index["row_group"].to_numpy()], 1)
    tiles = []
    for i in chosen:
        shard, group = groups[i]
        first = int((groups == groups[i]).all(1).argmax())
        with pq.ParquetFile(folder / shards["train"][shard]) as file:
            column = file.read_row_group(int(group), ["image"], use_threads=False)["image"]
        tiles.append(_tile(images.decode(column[int(i) - first].as_py())))
    side, across = tiles[0].width + GAP, min(8, len(tiles))
    size = (across * side - GAP, math.ceil(len(tiles) / across) * side - GAP)
    sheet = Image.new("RGB", size, "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % across * side, i // across * side))
    return images.encode(np.asarray(sheet), level=1)


def _tile(image: np.ndarray) -> Image.Image:
    """Enlarge an image by a whole factor, or reduce it, to about a tile's size, in RGB."""
    side = image.shape[0]
    wanted = side * max(1, TILE // side) if side < 2 * TILE else 2 * TILE
    method = Image.Resampling.NEAREST if wanted > side else Image.Resampling.BICUBIC
    return Image.fromarray(image).convert("RGB").resize((wanted, wanted), method)


def _before(statistics: Statistics) -> dict[str, dict[str, int]]:
    """Split (empty: undecided) to class (empty: none) to images before any was left out."""
    found: dict[str, Counter[str]] = {split: Counter() for split in (*SPLITS, "")}
    for split, counts in statistics.counts.items():
        found[split].update(counts)
    for (_, split, label), count in statistics.dropped.items():
        found[split][label] += count
    return {split: dict(counts) for split, counts in found.items()}


def _common_sizes(sizes: Counter[str]) -> dict[str, int]:
    """The most common sizes, and the sum of the others."""
    common = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:MOST_SIZES])
    rest = sum(sizes.values()) - sum(common.values())
    return common | ({f"{len(sizes) - len(common)} others": rest} if rest else {})
