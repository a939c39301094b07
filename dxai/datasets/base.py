"""Types shared by the layouts of raw images, and their error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dxai.config.schema import DatasetParams, PrepareParams

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """Unusable images; the message names the file, folder or class."""


@dataclass(frozen=True)
class File:
    """A file of a source, as it was when the source was listed."""

    name: str  # path relative to the source, with `/` between folders
    size: int  # bytes
    version: str  # changes with the content: time of the last write, an ETag


@dataclass(frozen=True)
class Unit:
    """Smallest piece that a process reads at once: an image file, a volume, an aerial image."""

    key: str  # unique; the ids of its samples start with it
    split: str = ""  # empty if its samples belong to several splits
    files: tuple[File, ...] = ()  # units whose first files are equal are duplicates
    label: str = ""  # class of its samples, if they share one
    group: str = ""  # samples of a group are never separated
    about: tuple[Any, ...] = ()  # anything else the layout needs to read the unit


@dataclass(frozen=True)
class Sample:
    """One image, cropped and resized, on its way into a shard."""

    image: np.ndarray  # uint8, (H, W) gray or (H, W, 3) RGB
    split: str  # one of SPLITS
    label: str  # name of its class
    id: str  # unique in the dataset
    # Images of a group are never separated by splitting or resampling: the source block of a
    # photograph, a patient; the image itself where images are independent.
    group: str
    source: str  # a file relative to the source folder, and the box within it
    # uint8, (H, W), where known: the class-distinct share of each pixel, of 255.
    mask: np.ndarray | None = None
    # Like `image`, where known: the same without the class-distinct content.
    neutral: np.ndarray | None = None
    size: tuple[int, int] | None = None  # width, height of the image file; None: those of `image`


@dataclass(frozen=True)
class Dropped:
    """Images that a rule of the filter leaves out."""

    rule: str  # ends the sentence "left out: "
    count: int = 1
    split: str = ""  # empty if undecided
    label: str = ""  # empty if they have none


Load = Callable[[File], bytes]
"""Read a file of the source whole, or raise `DataError`."""


@dataclass(frozen=True)
class Listing:
    """Images that a layout found, before any is read."""

    class_names: tuple[str, ...]  # in the order of the integer labels
    units: Sequence[Unit]
    # ``read(unit, load)`` yields the samples of a unit, and the images it drops. It runs in other
    # processes, so it must be a function of a module, or a `functools.partial` of one.
    read: Callable[[Unit, Load], Iterable[Sample | Dropped]]
    options: dict[str, Any] = field(default_factory=dict)  # with their defaults, for the manifest
    dropped: tuple[Dropped, ...] = ()  # left out while listing
    notes: tuple[str, ...] = ()  # remarks for the user that are not errors


@dataclass(frozen=True)
class Layout:
    """A dataset's native layout: how to find its images, and a small set drawn in it."""

    # ``find(source, dataset, prepare)`` lists the images of a `dxai.datasets.source.Source`.
    find: Callable[[Any, DatasetParams, PrepareParams], Listing]
    # ``render_sample(folder, options)`` writes a small synthetic set in the native layout
    # (`source: sample`), with the ground truth of each image in `truth/mask/` or `truth/neutral/`
    # under the image's own path. None if the layout reads no source.
    render_sample: Callable[[Path, dict[str, Any]], None] | None
    origin: str  # for the data card, as is the licence
    licence: str
    # ``counts(options)`` gives the paper's numbers of training (validation included) and test
    # images (Table 5), or None.
    counts: Callable[[dict[str, Any]], tuple[int, int] | None] = lambda options: None
    exact: bool = False  # whether a release declared as the paper's must have exactly these counts
