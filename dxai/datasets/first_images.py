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

PER_CLASS, IN_ALL = 16, 256
"""Images of a class; fewer if there are many classes, but at least two."""
MOST_UNITS = 200
"""Units read in search of a class before it is given up."""


def first_images(
    name: str, params: Params, prepared: Path, work: Path, per_class: int = 0
) -> tuple[Tensor, Tensor, list[str]]:
    """Return a few test images of each class of a dataset, before or after its stage `prepare`.

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
        if (data := _prepared(prepared, params, name, listing)) is not None:
            chosen = [
                i
                for label in range(len(data.class_names))
                for i in np.flatnonzero(data.labels == label)[:per_class]
            ]
            batch = data.batch(chosen)
            return batch.images, batch.labels, data.class_names
        samples = list(_samples(listing, source, per_class))
    if not samples:
        raise DataError(f"dataset {name}: no image of any class")
    pixels = np.stack([sample.image for sample in samples])
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    names = list(listing.class_names)
    labels = torch.tensor([names.index(sample.label) for sample in samples])
    return to_unit_range(torch.from_numpy(np.ascontiguousarray(pixels))), labels, names


def _prepared(folder: Path, params: Params, name: str, listing: Listing) -> ShardedDataset | None:
    """Open the prepared test images, if they were made with these settings."""
    dataset = params.dataset(name)
    try:
        data = ShardedDataset(folder, "test")
    except DataError:
        return None
    wanted = {
        "layout": dataset.layout,
        "channels": dataset.channels,
        "image_size": params.prepare.image_size,
        "options": listing.options,
        "class_names": list(listing.class_names),
    }
    return data if all(data.manifest.get(key) == value for key, value in wanted.items()) else None


def _samples(listing: Listing, source: Source | None, per_class: int) -> Iterator[Sample]:
    """Read units of the test split, each class in turn, until every class has enough samples."""
    by_label: dict[str, list[Unit]] = defaultdict(list)
    for unit in listing.units:
        if unit.split in ("test", ""):
            by_label[unit.label].append(unit)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_label.values()))
    left = dict.fromkeys(listing.class_names, per_class)
    load = source.load if source is not None else _nothing_to_load
    for unit in itertools.islice(filter(None, in_turn), MOST_UNITS):
        if unit.label and not left[unit.label]:
            continue
        for sample in listing.read(unit, load):
            if isinstance(sample, Sample) and left[sample.label]:
                left[sample.label] -= 1
                yield sample
        if not any(left.values()):
            return


def _nothing_to_load(file: object) -> bytes:
    raise DataError(f"{file}: this layout reads no files")
