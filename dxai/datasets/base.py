"""Types shared by the layouts of raw images, and their error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import Settings

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """Unusable images; the message names the file, folder or class."""


@dataclass(frozen=True)
class File:
    """A file of a source, as it was when the source was listed.

    Attributes
    ----------
    name : str
        Path relative to the source, with `/` between folders.
    size : int
        Bytes.
    version : str
        Changes with the content: time of the last write, an ETag.
    """

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class Unit:
    """Smallest piece that a process reads at once: an image file, a volume, an aerial image.

    Attributes
    ----------
    key : str
        Unique; the ids of its samples start with it.
    split : str
        Split of its samples; empty if they belong to several.
    files : tuple of File
        Files to load. Units whose first files are equal are duplicates.
    label : str
        Class of its samples, if they share one.
    classes : tuple of str
        Without a `label`, the classes that its samples can have; empty: any.
    group : str
        Samples of a group are never separated.
    about : tuple
        Anything else the layout needs to read the unit.
    """

    key: str
    split: str = ""
    files: tuple[File, ...] = ()
    label: str = ""
    group: str = ""
    about: tuple[Any, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One image, cropped and resized, on its way into a shard.

    Attributes
    ----------
    image : ndarray
        uint8, (H, W) gray or (H, W, 3) RGB.
    split : {'train', 'validation', 'test'}
        One of `SPLITS`.
    label : str
        Name of its class.
    id : str
        Unique in the dataset.
    group : str
        Images of a group are never separated by splitting or resampling: the source block of a
        photograph, a patient; the image itself where images are independent.
    source : str
        A file relative to the source folder, and the box within it.
    mask : ndarray, optional
        uint8, (H, W), where known: the class-distinct share of each pixel, of 255.
    neutral : ndarray, optional
        Like `image`, where known: the same without the class-distinct content.
    size : (int, int), optional
        Width and height of the image file, pixels; None takes those of `image`.
    """

    image: np.ndarray
    split: str
    label: str
    id: str
    group: str
    source: str
    mask: np.ndarray | None = None
    neutral: np.ndarray | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Dropped:
    """Images, or files found while listing, that a rule leaves out; `files` names the latter."""

    rule: str  # ends the sentence "left out: "
    count: int = 1
    split: str = ""  # empty if undecided
    label: str = ""  # empty if they have none
    files: tuple[str, ...] = field(default=(), compare=False)  # relative to the source

    @classmethod
    def of(cls, rule: str, files: Iterable[str], split: str = "", label: str = "") -> list[Dropped]:
        """Leave out files of a source; an empty list if there are none."""
        names = tuple(files)
        return [cls(rule, len(names), split, label, names)] if names else []


Load = Callable[[File], bytes]
"""Read a file of the source whole, or raise `DataError`."""


@dataclass(frozen=True)
class Listing:
    """Images that a layout found, before any is read.

    Attributes
    ----------
    class_names : tuple of str
        Every class, in the order of the integer labels.
    units : sequence of Unit
        Everything to read.
    read : callable
        ``read(unit, load)`` yields the samples of a unit, and the images it drops. It runs in other
        processes, so it must be a module-level function, or a `functools.partial` of one.
    options : dict
        The layout's options with their defaults, for the manifest.
    dropped : tuple of Dropped
        Files left out while listing, by name. `dxai.datasets.leftovers` adds what no unit holds,
        no rule names and was not read while listing.
    notes : tuple of str
        Remarks for the user that are not errors.
    classes_drawn : bool
        Whether the layout draws the class of a file, so that two equal files may differ in it.
    """

    class_names: tuple[str, ...]
    units: Sequence[Unit]
    read: Callable[[Unit, Load], Iterable[Sample | Dropped]]
    options: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    classes_drawn: bool = False


@dataclass(frozen=True)
class Layout:
    """A dataset's native layout: how to find its images, and a small set drawn in it.

    Attributes
    ----------
    find : callable
        ``find(source, dataset, prepare)`` lists the images of a `dxai.datasets.source.Source`.
    render_sample : callable or None
        ``render_sample(folder, options)`` writes a small synthetic set in the native layout
        (`source: sample`), with the ground truth of each image in `truth/mask/` or
        `truth/neutral/` under the image's own path. None if the layout reads no source.
    origin, licence : str
        For the data card.
    counts : callable
        ``counts(options)`` gives the paper's numbers of training (validation included) and test
        images (Table 5), or None.
    exact : bool
        Whether a release declared as the paper's must have exactly these counts.
    options : type of Settings
        Checks a dataset's `options`.
    fits : callable, optional
        Whether the names of a source's files look like this layout. None: it is never recognised,
        only chosen.
    looks_for : str
        The files that `fits` looks for, for messages.
    """

    find: Callable[[Any, DatasetParams, PrepareParams], Listing]
    render_sample: Callable[[Path, dict[str, Any]], None] | None
    origin: str
    licence: str
    counts: Callable[[dict[str, Any]], tuple[int, int] | None] = lambda options: None
    exact: bool = False
    options: type[Settings] = field(kw_only=True)
    fits: Callable[[Collection[str]], bool] | None = None
    looks_for: str = ""
