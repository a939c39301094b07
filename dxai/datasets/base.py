"""What every layout of raw images hands over, and the errors they share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dxai.params import DatasetParams, PrepareParams

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """Images that cannot be used; the message names the file, folder or class."""


@dataclass(frozen=True)
class Sample:
    """One image, cropped and resized, on its way into a shard.

    Attributes
    ----------
    image : ndarray
        uint8, (H, W) gray or (H, W, 3) RGB.
    split : {'train', 'validation', 'test'}
        Where it belongs.
    label : str
        Name of its class.
    id : str
        A name that no other image of the dataset has.
    group : str
        What it must not be separated from when images are split or resampled: the source block of
        a photograph, a patient; the image itself where images are independent.
    source : str
        Where the pixels come from: a file relative to the source folder, and the box within it.
    """

    image: np.ndarray
    split: str
    label: str
    id: str
    group: str
    source: str


@dataclass(frozen=True)
class Listing:
    """What a layout found; iterating reads the images one by one.

    Attributes
    ----------
    class_names : tuple of str
        Every class; an image's integer label is the place of its class here.
    total : int
        How many images there are.
    samples : iterable of Sample
        The images, read as they are asked for.
    options : dict
        The layout's options with their defaults filled in, for the manifest.
    notes : tuple of str
        What the user should know although it is no error.
    """

    class_names: tuple[str, ...]
    total: int
    samples: Iterable[Sample]
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


Layout = Callable[[DatasetParams, PrepareParams], Listing]
"""A layout takes a dataset's settings and those of the stage, and lists the images."""


def expand(source: str) -> Path:
    """A `source` of params.yaml as a path: `~`, `$NAME` and `${NAME}` replaced.

    Raises
    ------
    DataError
        If a named environment variable is unset or empty.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise DataError(f"source {source!r}: the environment variable {name} is not set")
        return os.environ[name]

    return Path(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, source)).expanduser()
