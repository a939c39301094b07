"""What every layout of raw images hands over, and the errors they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dxai.config.schema import DatasetParams, PrepareParams

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """Images that cannot be used; the message names the file, folder or class."""


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
        Changes when the content does: the time of the last write, an ETag.
    """

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class Unit:
    """What is read at once by one process: an image file, a volume, an aerial image.

    Attributes
    ----------
    key : str
        A name that no other unit has; the ids of its samples start with it.
    split : str
        Where its samples belong; empty if they belong to several splits.
    files : tuple of File
        What has to be loaded. Units whose first files are equal are duplicates.
    label : str
        The class of its samples, if they share one.
    group : str
        What its samples must not be separated from.
    about : tuple
        Whatever else the layout wants to know when it reads the unit.
    """

    key: str
    split: str = ""
    files: tuple[File, ...] = ()
    label: str = ""
    group: str = ""
    about: tuple[Any, ...] = ()


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
    mask : ndarray, optional
        uint8, (H, W), where it is known: the share of each pixel, of 255, that belongs to what
        makes the class.
    neutral : ndarray, optional
        Like `image`: the same without what makes the class, where that is known.
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
    """Images that a rule of the filter leaves out.

    Attributes
    ----------
    rule : str
        Which, in words that end the sentence "left out: ".
    count : int
        How many images.
    split : str
        Where they would have belonged; empty if that was not decided.
    label : str
        Their class; empty if they have none.
    """

    rule: str
    count: int = 1
    split: str = ""
    label: str = ""


Load = Callable[[File], bytes]
"""Reads a file of the source whole, or raises `DataError`."""


@dataclass(frozen=True)
class Listing:
    """What a layout found, before any image is read.

    Attributes
    ----------
    class_names : tuple of str
        Every class; an image's integer label is the place of its class here.
    units : sequence of Unit
        What there is to read.
    read : callable
        ``read(unit, load)`` yields the samples of a unit, and what it drops. It runs in other
        processes, so it must be a function of a module, or a `functools.partial` of one.
    options : dict
        The layout's options with their defaults filled in, for the manifest.
    dropped : tuple of Dropped
        What was left out already.
    notes : tuple of str
        What the user should know although it is no error.
    """

    class_names: tuple[str, ...]
    units: Sequence[Unit]
    read: Callable[[Unit, Load], Iterable[Sample | Dropped]]
    options: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()


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
        Where the images come from and on what terms, for the data card.
    counts : callable
        ``counts(options)`` gives the paper's numbers of training (validation included) and test
        images (Table 5), or None where it has none.
    exact : bool
        Whether a release that is declared as the paper's must have just these.
    """

    find: Callable[[Any, DatasetParams, PrepareParams], Listing]
    render_sample: Callable[[Path, dict[str, Any]], None] | None
    origin: str
    licence: str
    counts: Callable[[dict[str, Any]], tuple[int, int] | None] = lambda options: None
    exact: bool = False
