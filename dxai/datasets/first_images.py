"""A few images of each class of a dataset, prepared or not, to try a classifier on."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dxai.config.schema import Params
from dxai.config.settings import choose
from dxai.datasets.base import DataError, Listing, Sample, Unit
from dxai.datasets.leftovers import find_all
from dxai.datasets.prepare import raw_images
from dxai.datasets.registry import LAYOUTS
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.datasets.source import Source
from dxai.types import to_unit_range

USED = ("validation", "train")
"""Splits that are read, in this order; test images decide nothing."""
PER_CLASS, IN_ALL = 16, 256
"""Images of a class; fewer if there are many classes, but at least two."""
MOST_UNITS = 200
"""Units read in search of a class before it is given up."""


def first_images(
    name: str, params: Params, prepared: Path, work: Path, per_class: int = 0
) -> tuple[Tensor, Tensor, list[str]]:
    """Return a few images of each class of a dataset, before or after its stage `prepare`.

    They are validation images, then training images where those are too few.

    Parameters
    ----------
    name, params
        A name in `params.datasets`, and the run's settings.
    prepared : path
        Output of the stage `prepare`, read if it has the settings of `params`.
    work : path
        Folder of unfinished work, where a sample is drawn.
    per_class : int
        Images of each class, or as many as there are; 0: few enough to be read in seconds.

    Returns
    -------
    images : Tensor
        (N, C, image_size, image_size), float32 in [-1, 1].
    labels : Tensor
        (N,), int64: indices into the class names.
    class_names : list of str
        Every class, in the dataset's order.

    Raises
    ------
    ValueError
        For unusable images or options, as in the stage `prepare`.
    """
    dataset = params.dataset(name)
    layout = LAYOUTS[choose(f"dataset {name}: layout", dataset.layout, LAYOUTS)]
    with raw_images(name, dataset, layout, work) as source:
        listing = find_all(layout, source, dataset, params.prepare)
        per_class = per_class or max(2, min(PER_CLASS, IN_ALL // len(listing.class_names)))
        if (splits := _prepared(prepared, params, name, listing)) is not None:
            return *_chosen(splits, per_class), splits[0].class_names
        samples = list(_samples(listing, source, per_class))
    if not samples:
        raise DataError(f"dataset {name}: no image of any class")
    pixels = np.stack([sample.image for sample in samples])
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    names = list(listing.class_names)
    labels = torch.tensor([names.index(sample.label) for sample in samples])
    return to_unit_range(torch.from_numpy(np.ascontiguousarray(pixels))), labels, names


def _chosen(splits: list[ShardedDataset], per_class: int) -> tuple[Tensor, Tensor]:
    """Read the first images of each class, of the first split that has them."""
    left = dict.fromkeys(range(len(splits[0].class_names)), per_class)
    parts = []
    for data in splits:
        indices = []
        for label in left:
            found = np.flatnonzero(data.labels == label)[: left[label]]
            left[label] -= len(found)
            indices += found.tolist()
        if indices:
            parts.append(data.batch(indices))
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


def _prepared(
    folder: Path, params: Params, name: str, listing: Listing
) -> list[ShardedDataset] | None:
    """Open the prepared images of the splits in use, if they were made with these settings."""
    dataset = params.dataset(name)
    try:
        splits = [ShardedDataset(folder, split) for split in USED]
    except DataError:
        return None
    wanted = {
        "layout": dataset.layout,
        "channels": dataset.channels,
        "image_size": params.prepare.image_size,
        "options": listing.options,
        "class_names": list(listing.class_names),
    }
    manifest = splits[0].manifest
    return splits if all(manifest.get(key) == value for key, value in wanted.items()) else None


def _samples(listing: Listing, source: Source | None, per_class: int) -> Iterator[Sample]:
    """Read units of the splits in use, each class in turn, until every class has enough samples."""
    by_label: dict[str, list[Unit]] = defaultdict(list)
    for split in (*USED, ""):
        for unit in listing.units:
            if unit.split == split:
                by_label[unit.label].append(unit)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_label.values()))
    left = dict.fromkeys(listing.class_names, per_class)
    load = source.load if source is not None else _nothing_to_load
    for unit in itertools.islice(filter(None, in_turn), MOST_UNITS):
        if unit.label and not left[unit.label]:
            continue
        for sample in listing.read(unit, load):
            if isinstance(sample, Sample) and sample.split in USED and left[sample.label]:
                left[sample.label] -= 1
                yield sample
        if not any(left.values()):
            return


def _nothing_to_load(file: object) -> bytes:
    raise DataError(f"{file}: this layout reads no files")
