"""Layout `dota`: aerial images with rotated boxes, cut into patches with and without cars.

`NAME.png` and `NAME.txt`, each in any folder of the source. A label file may begin with the lines
`imagesource:` and `gsd:`; every other line is a box: eight coordinates, category and optionally
whether the box is difficult.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import numpy as np
import shapely
from pydantic import Field

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import DataError, Dropped, Layout, Listing, Load, Sample, Unit
from dxai.datasets.images import open_image, resize
from dxai.datasets.layouts.class_folders import Files
from dxai.datasets.layouts.dota_labels import CAR, Boxes, pair, parse_labels
from dxai.datasets.layouts.spelling import listed
from dxai.datasets.samples import dota
from dxai.datasets.source import Source
from dxai.datasets.splits import SplitOptions, by_split, draw_splits

CLASSES = ("cars", "none")
PARTIAL = "a vehicle in it, but not enough of a small one"
OUTSIDE = "a vehicle's box that lies outside of its image"
MANY = 100
"""Boxes of which some are rotated, if labels hold rotated boxes at all."""
TOO_SMALL = "an image smaller than a patch"


class DotaOptions(SplitOptions):
    """Options of the layout `dota`; the shares are of images."""

    patch: int = Field(256, ge=1, description="Side of a patch, pixels.")
    stride: int = Field(
        256,
        ge=1,
        description="Pixels from one patch to the next.\n"
        "The remainder at the right and lower edge is not used.",
    )
    coverage: float = Field(
        0.7,
        gt=0,
        le=1,
        description='Share of a small vehicle\'s area that a patch of class "cars" must hold.',
    )
    difficult: bool = Field(
        True,
        description="Whether boxes that are marked difficult count as cars.\n"
        "They are vehicles in any case: a patch that holds a part of one is never of class "
        '"none".',
    )
    small_images: Literal["skip", "pad"] = Field(
        "skip", description="Handling of an image smaller than a patch; padding is black."
    )
    labels: str | None = Field(
        None,
        description="Folder of the label files to use, where images have several.\n"
        "For example labelTxt-v1.5; null: all but upright boxes (`*reclabelTxt`, `*_hbb`).",
    )


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images; each goes to one split with all its patches.

    Labels without a small vehicle, two label files of an image and malformed lines raise
    `DataError`.
    """
    options = parse(DotaOptions, dataset.options, "options")
    files = Files(source)
    pairs, dropped = pair(files.all, options.labels, source.name)
    boxes = []
    for _, label in pairs:
        text = source.load(files.all[label]).decode("utf-8-sig", "replace")
        boxes.append(parse_labels(text, f"{source.name}/{label}", options.difficult))
    unknown = Counter(category for found in boxes for category in found.unknown)
    others = listed(f"{name} ({count})" for name, count in unknown.most_common())
    with_cars = [bool(found.is_car.any()) for found in boxes]
    if not any(with_cars):
        raise DataError(
            f"{source.name}: no box of {CAR} in {len(boxes)} label files; unknown categories in "
            f"them are {others}"
        )
    units = [
        Unit(
            image,
            split,
            (files.all[image],),
            group=image,
            about=(found,),
            classes=CLASSES if cars else CLASSES[1:],
        )
        for (image, _), found, cars, split in zip(
            pairs, boxes, with_cars, _assign(with_cars, options), strict=True
        )
    ]
    read = functools.partial(
        read_patches, options=options, image_size=prepare.image_size, channels=dataset.channels
    )
    notes = [f"boxes of unknown categories count as background: {others}"] if unknown else []
    corners = np.concatenate([found.corners for found in boxes])
    if len(corners) >= MANY and is_upright(corners).all():
        notes.append(
            f"all {len(corners)} boxes are upright; the releases' rotated ones are in other files "
            "(without hbb or reclabelTxt in their names)"
        )
    return Listing(
        CLASSES, by_split(units), read, options.model_dump(), tuple(dropped), tuple(notes)
    )


def is_upright(corners: np.ndarray) -> np.ndarray:
    """Whether each box, (N, 4, 2), has its sides along the axes: bool, (N,)."""
    aligned = (corners == np.roll(corners, -1, axis=1)).any(-1)  # a side keeps x or y
    return aligned.all(-1)


def outlines(corners: np.ndarray) -> np.ndarray:
    """Polygons of boxes, (N, 4, 2); crossed corners make a bow tie and mean its hull."""
    shapes = shapely.polygons(corners)
    crossed = ~shapely.is_valid(shapes)
    shapes[crossed] = shapely.convex_hull(shapes[crossed])
    return shapes


def coverage(corners: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Share of each box's area inside each patch.

    Parameters
    ----------
    corners : ndarray
        (N, 4, 2), of the boxes; they go around each box or cross over.
    patches : ndarray
        (P, 4): left, top, right, bottom.

    Returns
    -------
    ndarray
        (N, P), in [0, 1]. A box without area counts as a point: 1 in the patches that hold it.
    """
    shapes = outlines(corners)
    area = shapely.area(shapes)
    flat = area == 0
    windows = shapely.box(*np.asarray(patches, np.float64).T)
    shares = np.zeros((len(shapes), len(windows)))
    # Intersect only pairs that meet.
    near_box, near_patch = shapely.STRtree(windows).query(shapes, predicate="intersects")
    inside = shapely.area(shapely.intersection(shapes[near_box], windows[near_patch]))
    whole = np.where(flat, 1.0, area)[near_box]
    shares[near_box, near_patch] = np.where(flat[near_box], 1.0, inside / whole)
    return shares.clip(0, 1)


def patch_grid(width: int, height: int, patch: int, stride: int) -> np.ndarray:
    """All patches within an image: (P, 4) of left, top, right, bottom."""
    top, left = np.meshgrid(
        np.arange(0, height - patch + 1, stride),
        np.arange(0, width - patch + 1, stride),
        indexing="ij",
    )
    corner = np.stack([left.ravel(), top.ravel()], 1)
    return np.concatenate([corner, corner + patch], 1)


def classify(boxes: Boxes, patches: np.ndarray, enough: float) -> np.ndarray:
    """The class of each patch: 0 "cars", 1 "none", -1 in between."""
    shares = coverage(boxes.corners, patches) if len(boxes.corners) else np.zeros((0, len(patches)))
    # Coordinates are decimal: rounding must not exclude a box with exactly the required share.
    cars = (shares[boxes.is_car] >= enough - 1e-9).any(0)
    vehicles = (shares[boxes.is_vehicle] > 0).any(0)
    return np.where(cars, 0, np.where(vehicles, -1, 1))


def read_patches(
    unit: Unit, load: Load, options: DotaOptions, image_size: int, channels: int
) -> Iterator[Sample | Dropped]:
    """Yield the patches of an image, each with a mask of its cars."""
    (boxes,) = unit.about
    picture = open_image(load(unit.files[0]), unit.key, channels)
    size = picture.size
    vehicles = boxes.corners[boxes.is_vehicle]
    outside = (vehicles.max(1) <= 0) | (vehicles.min(1) >= size)
    if lost := int(outside.any(1).sum()):
        yield Dropped(OUTSIDE, lost, unit.split)
    if min(size) < options.patch:
        if options.small_images == "skip":
            yield Dropped(TOO_SMALL, 1, unit.split)
            return
        # A crop is black beyond the image.
        right, bottom = (max(side, options.patch) for side in size)
        picture = picture.crop((0, 0, right, bottom))
    patches = patch_grid(*picture.size, options.patch, options.stride)
    labels = classify(boxes, patches, options.coverage)
    between = int((labels < 0).sum())
    if between:
        yield Dropped(PARTIAL, between, unit.split)
    for box, label in zip(patches.tolist(), labels, strict=True):
        if label < 0:
            continue
        left, top, right, bottom = box
        mask = None
        if label == 0:
            cars = boxes.corners[boxes.is_car] - (left, top)
            mask = draw_mask(cars, right - left, bottom - top)
        yield Sample(
            resize(np.asarray(picture.crop(box)), image_size),
            unit.split,
            CLASSES[label],
            f"{unit.key}/y{top:05d}-x{left:05d}",
            unit.group,
            f"{unit.key} rows {top}-{bottom - 1}, columns {left}-{right - 1}",
            mask=resize(mask, image_size, is_mask=True) if mask is not None else None,
            size=size,
        )


def draw_mask(cars: np.ndarray, width: int, height: int) -> np.ndarray:
    """Mask of boxes, (N, 4, 2): uint8, (height, width), the share of each pixel inside, of 255."""
    mask = np.zeros((height, width), np.uint8)
    meets = (cars.max(1) >= 0).all(-1) & (cars.min(1) <= (width, height)).all(-1)
    for outline in outlines(cars[meets]):
        if outline.area:
            left, top, right, bottom = outline.bounds
            columns = slice(max(0, math.floor(left)), min(width, math.ceil(right)))
            rows = slice(max(0, math.floor(top)), min(height, math.ceil(bottom)))
            shares, part = pixel_shares(outline, columns, rows), mask[rows, columns]
        else:  # it counts as a point and marks the pixels that hold it
            pixels = shapely.box(*patch_grid(width, height, 1, 1).T.astype(float))
            shares, part = shapely.intersects(outline, pixels).reshape(height, width), mask
        np.maximum(part, (255 * shares.clip(0, 1)).round().astype(np.uint8), out=part)
    return mask


def pixel_shares(outline: shapely.Polygon, columns: slice, rows: slice) -> np.ndarray:
    """Share of each pixel inside a polygon without holes: (rows, columns), exact.

    The polygon may extend beyond the rows, and beyond the columns at the sides of the image.
    An edge's share of a pixel is the area between it and the pixel's right side, with the sign of
    its direction; a pixel's share is the sum over the edges in it and on its left.
    """
    points = shapely.get_coordinates(outline)
    sums = np.zeros((rows.stop - rows.start, columns.stop - columns.start + 2))
    for start, end in itertools.pairwise(points):
        if start[1] == end[1]:  # no area on its right
            continue
        low, high = np.minimum(start, end), np.maximum(start, end)
        # Cut the edge where it passes from one pixel to the next.
        cuts = [
            (np.arange(np.ceil(a), np.floor(b) + 1) - first) / (last - first)
            for a, b, first, last in zip(low, high, start, end, strict=True)
            if first != last
        ]
        pieces = start + np.sort(np.concatenate([[0, 1], *cuts]))[:, None] * (end - start)
        x, y = ((pieces[1:] + pieces[:-1]) / 2).T
        fall = np.diff(pieces[:, 1])
        inside = (y >= rows.start) & (y < rows.stop)
        x, y, fall = x[inside].clip(columns.start, columns.stop), y[inside], fall[inside]
        column, row = x.astype(int), y.astype(int) - rows.start
        np.add.at(sums, (row, column - columns.start), fall * (column + 1 - x))
        np.add.at(sums, (row, column - columns.start + 1), fall * (x - column))
    return np.abs(sums[:, :-2].cumsum(1))


def _assign(with_cars: list[bool], options: DotaOptions) -> list[str]:
    """Draw the split of each image, separately for images with and without cars."""
    drawn = {}
    for kind in (True, False):
        total = with_cars.count(kind)
        test, validation = (round(p * total) for p in (options.test, options.validation))
        drawn[kind] = iter(draw_splits(total, test, validation, options.seed, f"dota/{kind}"))
    return [next(drawn[kind]) for kind in with_cars]


LAYOUT = Layout(
    find,
    dota.render_sample,
    "DOTA v1.0, Xia et al. 2018, https://captain-whu.github.io/DOTA",
    "academic use only; images of Google Earth under its own terms",
    lambda options: (172465, 20696),
    options=DotaOptions,
    fits=lambda names: any("labeltxt" in name.lower().rpartition("/")[0] for name in names),
    looks_for="labelTxt*/*.txt",
)
