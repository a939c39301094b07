"""Layout `dota`: aerial images with rotated boxes, cut into patches with and without cars.

`images/NAME.png` and `labelTxt/NAME.txt` beside it, anywhere in the source. A label file may begin
with the lines `imagesource:` and `gsd:`; every other line is a box: eight coordinates, category
and optionally whether the box is difficult.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import shapely
from PIL import Image, ImageDraw
from pydantic import Field

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import DataError, Dropped, File, Layout, Listing, Load, Sample, Unit
from dxai.datasets.images import EXTENSIONS, open_image, resize
from dxai.datasets.layouts.class_folders import Files
from dxai.datasets.samples import dota
from dxai.datasets.source import Source, suffix
from dxai.datasets.splits import SplitOptions, by_split, draw_splits

CLASSES = ("cars", "none")
CAR, VEHICLES = "small-vehicle", ("small-vehicle", "large-vehicle")
PARTIAL = "a vehicle in it, but not enough of a small one"
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


@dataclass(frozen=True)
class Boxes:
    """The boxes of an image."""

    corners: np.ndarray  # float64, (N, 4, 2), x and y in pixels
    is_car: np.ndarray  # bool, (N,)
    is_vehicle: np.ndarray  # bool, (N,)


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images; each goes to one split with all its patches.

    Images without labels, labels without an image and malformed lines raise `DataError`.
    """
    options = parse(DotaOptions, dataset.options, "options")
    files = Files(source)
    pairs = _pairs(files)
    boxes = []
    for _, label in pairs:
        text = source.load(label).decode("utf-8-sig", "replace")
        boxes.append(parse_labels(text, f"{source.name}/{label.name}", options.difficult))
    splits = _assign([bool(found.is_car.any()) for found in boxes], options)
    units = [
        Unit(image.name, split, (image,), "", image.name, (found,))
        for (image, _), found, split in zip(pairs, boxes, splits, strict=True)
    ]
    read = functools.partial(
        read_patches, options=options, image_size=prepare.image_size, channels=dataset.channels
    )
    return Listing(CLASSES, by_split(units), read, options.model_dump())


def _pairs(files: Files) -> list[tuple[File, File]]:
    """Pair each image with its labels."""
    labels = {n: f for n, f in files.all.items() if PurePosixPath(n).parent.name == "labelTxt"}
    pairs = []
    for name, file in files.all.items():
        path = PurePosixPath(name)
        if path.parent.name != "images" or suffix(name) not in EXTENSIONS:
            continue
        wanted = (path.parent.parent / "labelTxt" / path.stem).as_posix() + ".txt"
        if wanted not in labels:
            raise DataError(f"{files.source.name}/{name}: no labels ({wanted})")
        pairs.append((file, labels.pop(wanted)))
    if labels:
        raise DataError(f"{files.source.name}/{min(labels)}: no image of this name in images/")
    if len(pairs) < 3:
        raise DataError(
            f"{files.source.name}: {len(pairs)} images in images/; three splits take at least 3"
        )
    return pairs


def parse_labels(text: str, where: str, difficult: bool = True) -> Boxes:
    """Parse a label file; with `difficult`, boxes marked difficult may be cars.

    `DataError` names the file, `where`, and the line that is neither a header nor a box.
    """
    corners, cars, vehicles = [], [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or line.lower().startswith(("imagesource:", "gsd:")):
            continue
        try:
            points = [float(word) for word in words[:8]]
            hard = int(words[9]) if len(words) > 9 else 0
        except ValueError:
            points, hard = [], 0
        # A category that is a number is an extra coordinate.
        if (
            len(points) < 8
            or len(words) not in (9, 10)
            or not np.isfinite(points).all()
            or words[8].lstrip("-").replace(".", "", 1).isdigit()
        ):
            raise DataError(
                f"{where}, line {number}: eight coordinates, a category and perhaps a difficulty "
                f"are expected, not {line[:80]!r}"
            )
        corners.append(points)
        cars.append(words[8] == CAR and (difficult or not hard))
        vehicles.append(words[8] in VEHICLES)
    return Boxes(
        np.asarray(corners, np.float64).reshape(-1, 4, 2),
        np.asarray(cars, bool),
        np.asarray(vehicles, bool),
    )


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
    shapes = shapely.polygons(corners)
    # Corners in a crossed order make a bow tie; the intended box is their hull.
    shapes = np.where(shapely.is_valid(shapes), shapes, shapely.convex_hull(shapes))
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
        yield Sample(
            resize(np.asarray(picture.crop(box)), image_size),
            unit.split,
            CLASSES[label],
            f"{unit.key}/y{top:05d}-x{left:05d}",
            unit.group,
            f"{unit.key} rows {top}-{bottom - 1}, columns {left}-{right - 1}",
            mask=resize(_mask(boxes, box), image_size, is_mask=True) if label == 0 else None,
            size=size,
        )


def _mask(boxes: Boxes, patch: Sequence[int]) -> np.ndarray:
    """Mask of the cars in a patch, (patch, patch), 255 inside."""
    mask = Image.new("L", (patch[2] - patch[0], patch[3] - patch[1]))
    pen = ImageDraw.Draw(mask)
    corner, far = np.asarray(patch[:2]), np.asarray(patch[2:])
    cars = boxes.corners[boxes.is_car]
    near = (cars.max(1) > corner).all(1) & (cars.min(1) < far).all(1)
    for corners in cars[near] - corner:
        pen.polygon([tuple(point) for point in corners], fill=255)
    return np.asarray(mask)


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
    fits=lambda names: any(PurePosixPath(name).parent.name == "labelTxt" for name in names),
    looks_for="images/*.png and labelTxt/*.txt",
)
