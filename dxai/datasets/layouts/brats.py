"""Layout `brats`: brain MRI, one folder per case, cut into axial slices with and without tumour.

`CASE/CASE_flair.nii.gz` (or `-t2f`) and `CASE/CASE_seg.nii.gz` (or `-seg`), anywhere in the source.
Volumes are skull-stripped: voxels outside the brain are 0.
"""

from __future__ import annotations

import functools
import gzip
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal, Self

import nibabel
import numpy as np
from pydantic import Field, model_validator

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError, parse
from dxai.datasets.base import SPLITS, DataError, Dropped, File, Layout, Listing, Load, Sample, Unit
from dxai.datasets.images import resize
from dxai.datasets.layouts.class_folders import Files
from dxai.datasets.samples import brats
from dxai.datasets.source import Source
from dxai.datasets.splits import SplitOptions, by_split, draw_splits
from dxai.utils import keyed_random

CLASSES = ("healthy", "tumour")
VOLUME = re.compile(r"[-_](flair|t2f|seg)\.nii(\.gz)?$")
NAMES = {"image": "*_flair.nii.gz or *-t2f.nii.gz", "seg": "*_seg.nii.gz"}
FOLLOW_UP = re.compile(r"^(BraTS-[A-Za-z]+-\d{5})-\d{3}$")
"""Names in later releases, whose last number counts a patient's examinations."""
LITTLE = "some tumour, but too few pixels of it"
NARROW = "no tumour, but less than a full cross-section of the brain"

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,  # voxels that are colours, not numbers
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.wrapstruct.WrapStructError,
)
"""Errors that gzip and nibabel raise for damaged volumes."""


class BratsOptions(SplitOptions):
    """Options of the layout `brats`; the shares are of patients or slices."""

    min_tumour: int = Field(
        20,
        ge=1,
        description='Pixels of tumour that make a slice "tumour", at the volume\'s resolution.',
    )
    cross_section: float = Field(
        0.7,
        gt=0,
        le=1,
        description='Share of the patient\'s largest brain area that a "healthy" slice must have.',
    )
    clip: list[float] = Field(
        [0.5, 99.5],
        description="Percentiles of the brain's intensities that become black and white.",
    )
    split_by: Literal["patient", "slice"] = Field(
        "patient",
        description="Whether all slices of a patient go to the same split.\n"
        "The paper splits by slice.",
    )

    @model_validator(mode="after")
    def _check_clip(self) -> Self:
        if len(self.clip) != 2 or not 0 <= self.clip[0] < self.clip[1] <= 100:
            raise ParamsError(f"clip is {self.clip}; it takes two rising percentiles")
        return self


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the cases; one without image or segmentation, or too few patients, raise `DataError`."""
    if dataset.channels != 1:
        raise ParamsError(f"channels is {dataset.channels}; MRI is gray, take 1")
    options = parse(BratsOptions, dataset.options, "options")
    cases = _cases(Files(source))
    patients = sorted({_patient(case) for case in cases})
    splits = dict.fromkeys(patients, "")
    if options.split_by == "patient":
        splits = _assign(patients, options, source.name)
    units = [
        Unit(case, splits[_patient(case)], files, "", _patient(case), (i,))
        for i, (case, files) in enumerate(sorted(cases.items()))
    ]
    read = functools.partial(read_slices, options=options, image_size=prepare.image_size)
    return Listing(CLASSES, by_split(units), read, options.model_dump())


def _cases(files: Files) -> dict[str, tuple[File, File]]:
    """Map each case, the path of its folder, to its image and segmentation."""
    found: dict[str, dict[str, File]] = defaultdict(dict)
    for name, file in files.all.items():
        match = VOLUME.search(name)
        if match:
            volumes = found[PurePosixPath(name).parent.as_posix()]
            kind = "seg" if match[1] == "seg" else "image"
            if kind in volumes and match[1] == "t2f":
                continue  # the older name wins
            volumes[kind] = file
    if not found:
        raise DataError(
            f"{files.source.name}: no cases; each is a folder with *_flair.nii.gz (or -t2f) and "
            "*_seg.nii.gz"
        )
    for case, volumes in sorted(found.items()):
        for kind, names in NAMES.items():
            if kind not in volumes:
                raise DataError(f"{files.source.name}: case {case}: no {names}")
    return {case: (volumes["image"], volumes["seg"]) for case, volumes in found.items()}


def _patient(case: str) -> str:
    name = PurePosixPath(case).name
    match = FOLLOW_UP.match(name)
    return match[1] if match else case


def _assign(patients: list[str], options: BratsOptions, where: str) -> dict[str, str]:
    total = len(patients)
    test, validation = (max(1, round(p * total)) for p in (options.test, options.validation))
    if test + validation >= total:
        raise DataError(f"{where}: {total} patients are too few for three splits")
    splits = draw_splits(total, test, validation, options.seed, "brats/patients")
    return dict(zip(patients, splits, strict=True))


def read_slices(
    unit: Unit, load: Load, options: BratsOptions, image_size: int
) -> Iterator[Sample | Dropped]:
    """Yield the axial slices of a case, anterior up and the patient's right on the left.

    `DataError` names the case if a volume is damaged, constant, not finite or not
    three-dimensional, or if the segmentation is on another grid.
    """
    image, seg = (_volume(load(file), file.name, unit.key) for file in unit.files)
    if image.shape != seg.shape or not np.allclose(image.affine, seg.affine, atol=1e-2):
        raise DataError(
            f"case {unit.key}: the segmentation {seg.shape} does not lie on the grid of the image "
            f"{image.shape}"
        )
    values = np.asarray(image.dataobj, np.float32)
    tumour = np.asarray(seg.dataobj) > 0
    brain = values > 0
    if not brain.any():
        raise DataError(f"case {unit.key}: no value is above 0, which would be brain")
    gray = _normalise(values, brain, options.clip, unit.key)
    areas = brain.sum((0, 1))
    full = options.cross_section * areas.max()
    for z in range(values.shape[2]):
        split = unit.split or _slice_split(options, unit.about[0], z)
        pixels = int(tumour[:, :, z].sum())
        if 0 < pixels < options.min_tumour:
            yield Dropped(LITTLE, 1, split)
        elif not pixels and areas[z] < full:
            yield Dropped(NARROW, 1, split)
        else:
            yield Sample(
                resize(_upright(gray[:, :, z]), image_size),
                split,
                CLASSES[pixels > 0],
                f"{unit.key}/z{z:03d}",
                unit.group,
                f"{unit.files[0].name} axial slice {z}",
                mask=resize(_upright(255 * tumour[:, :, z].astype(np.uint8)), image_size, True)
                if pixels
                else None,
                size=(values.shape[0], values.shape[1]),
            )


def _volume(data: bytes, name: str, case: str) -> Any:
    """Read a NIfTI file with its axes in the order right, anterior, superior."""
    try:
        raw = gzip.decompress(data) if name.endswith(".gz") else data
        volume = nibabel.Nifti1Image.from_bytes(raw)
        if len(volume.shape) != 3:
            raise ValueError(f"{len(volume.shape)} dimensions, not 3")
        if not np.isfinite(np.asarray(volume.dataobj)).all():  # fails for a truncated file
            raise ValueError("values that are not finite")
        return nibabel.as_closest_canonical(volume)
    except UNREADABLE as error:
        raise DataError(f"case {case}: {name}: unreadable volume ({error})") from error


def _normalise(values: np.ndarray, brain: np.ndarray, clip: list[float], case: str) -> np.ndarray:
    """Scale the clipped range of the brain's values to uint8, 0 to 255; 0 elsewhere."""
    low, high = np.percentile(values[brain], clip)
    if not high > low:
        raise DataError(f"case {case}: the brain has one value only")
    scaled = ((values - low) / (high - low)).clip(0, 1) * 255
    return np.where(brain, scaled.round(), 0).astype(np.uint8)


def _upright(axial: np.ndarray) -> np.ndarray:
    """Turn rows from anterior to posterior, columns from right to left, and pad to a square."""
    picture = axial[::-1, ::-1].T
    side = max(picture.shape)
    rows, columns = ((side - n) // 2 for n in picture.shape)
    square = np.zeros((side, side), np.uint8)
    square[rows : rows + picture.shape[0], columns : columns + picture.shape[1]] = picture
    return square


def _slice_split(options: BratsOptions, case: int, z: int) -> str:
    drawn = keyed_random.generator(options.seed, "brats/slices", case, z).random()
    test, held = options.test, options.test + options.validation
    return SPLITS[2] if drawn < test else SPLITS[1] if drawn < held else SPLITS[0]


LAYOUT = Layout(
    find,
    brats.render_sample,
    "BraTS challenge, Menze et al. 2015, Bakas et al. 2017, https://www.synapse.org/brats",
    "CC BY 4.0, or the challenge's data agreement, by release",
    lambda options: (15000, 1232),
    options=BratsOptions,
    fits=lambda names: any(map(VOLUME.search, names)),
    looks_for=f"{NAMES['image']}, and {NAMES['seg']}",
)
