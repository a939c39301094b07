"""Layout `noise`: any folder of photographs, half of them with white Gaussian noise added here.

Noise is drawn from each image's own key, at the stored size, so that shards are reproducible; the
image without it is stored too (`neutral`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError, parse
from dxai.datasets.base import DataError, Dropped, Layout, Listing, Load, Sample, Unit
from dxai.datasets.images import open_image, square
from dxai.datasets.layouts.class_folders import NO_IMAGE, Files, is_image
from dxai.datasets.samples import noise
from dxai.datasets.source import Source
from dxai.datasets.splits import SplitOptions, by_split
from dxai.utils import keyed_random

CLASSES = ("clean", "noise")


class NoiseOptions(SplitOptions):
    """Options of the layout `noise`; the seed also draws which images get noise, and the noise."""

    sigma: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Deviation of the noise as a share of the range (0.1: 25.5 of 255).",
    )


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List every image below `source`, whatever its folder; each split is half clean, half noise.

    Too few images raise `DataError`; an impossible option, or an encoding that would change the
    noise, raises `ParamsError`.
    """
    options = parse(NoiseOptions, dataset.options, "options")
    if dataset.encoding != "png":
        raise ParamsError("encoding: jpeg would change the noise; take png")
    files = Files(source)
    images = [
        file for name, file in files.all.items() if is_image(name) and not name.startswith("truth/")
    ]
    order = keyed_random.permutation(options.seed, "noise/split", 0, len(images))
    ends = np.array([options.test, options.test + options.validation, 1]) * len(images)
    units, start = [], 0
    for split, end in zip(("test", "validation", "train"), ends.round().astype(int), strict=True):
        if end - start < 2:
            raise DataError(f"{source.name}: {len(images)} images, too few for split {split}")
        for n, index in enumerate(order[start:end]):
            file, label = images[index], CLASSES[n % 2]
            units.append(Unit(file.name, split, (file,), label, file.name, (int(index),)))
        start = end
    read = functools.partial(
        read_noisy,
        image_size=prepare.image_size,
        channels=dataset.channels,
        sigma=255 * options.sigma,
        seed=options.seed,
    )
    dropped = files.unused(units, lambda name: Dropped(NO_IMAGE))
    return Listing(
        CLASSES, by_split(units), read, options.model_dump(), dropped, classes_drawn=True
    )


def read_noisy(
    unit: Unit, load: Load, image_size: int, channels: int, sigma: float, seed: int
) -> Iterator[Sample]:
    """Yield a file's sample, plus noise of deviation `sigma` (of 255) if that is its class."""
    picture = open_image(load(unit.files[0]), unit.key, channels)
    clean = square(picture, image_size)
    image = clean
    if unit.label == "noise":
        drawn = keyed_random.generator(seed, "noise/values", 0, unit.about[0])
        noisy = clean + sigma * drawn.standard_normal(clean.shape)
        image = noisy.round().clip(0, 255).astype(np.uint8)
    yield Sample(
        image, unit.split, unit.label, unit.key, unit.group, unit.key,
        neutral=clean, size=picture.size,
    )  # fmt: skip


LAYOUT = Layout(
    find,
    noise.render_sample,
    "your own photographs, with noise added here",
    "yours",
    options=NoiseOptions,
)
