"""Layout `brats`: brain MRI, one FLAIR volume per case, in axial slices with and without tumour.

A case is two volumes in one folder, anywhere in the source: `CASE_flair.nii.gz` (or `-t2f`) and
`CASE_seg.nii.gz` (or `-seg`), in any letter case, compressed or not. The folder may be the case's
own or hold any number of cases. Volumes are skull-stripped.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import ParamsError, parse
from dxai.datasets.base import SPLITS, DataError, Dropped, Layout, Listing, Load, Sample, Unit
from dxai.datasets.images import resize
from dxai.datasets.layouts.brats_cases import PAIR, find_cases, parse_name
from dxai.datasets.layouts.volumes import find_brain, find_tumour, read_volume
from dxai.datasets.samples import brats
from dxai.datasets.source import Source
from dxai.datasets.splits import SplitOptions, by_split, check_group, draw_splits, group_of
from dxai.utils import keyed_random

CLASSES = ("healthy", "tumour")
FOLLOW_UP = re.compile(r"(BraTS-[A-Za-z]+-\d{5})-\d{3}", re.IGNORECASE)
"""Names in later releases, whose last number counts a patient's examinations."""

LITTLE = "some tumour, but too few pixels of it"
NARROW = "no tumour, but less than a full cross-section of the brain"


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
    group: str | None = Field(
        None,
        description="A regular expression whose captures in a case's path are its patient.\n"
        "It is searched in the path of the FLAIR volume relative to `source`. null: "
        "`BraTS-GLI-00000-000` and `BraTS-GLI-00000-001` are examinations of one patient, and any "
        "other case is a patient of its own.",
    )

    _check_group = field_validator("group")(check_group)

    @model_validator(mode="after")
    def _check_clip(self) -> Self:
        if len(self.clip) != 2 or not 0 <= self.clip[0] < self.clip[1] <= 100:
            raise ParamsError(f"clip is {self.clip}; it takes two rising percentiles")
        return self


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the cases.

    No case, too few patients, a path without a patient, two files for one volume, or an image and a
    segmentation of different names without their counterparts raise `DataError`.
    """
    if dataset.channels != 1:
        raise ParamsError(f"channels is {dataset.channels}; MRI is gray, take 1")
    options = parse(BratsOptions, dataset.options, "options")
    cases, dropped = find_cases(source)
    patient = {case: _patient(case, files[0].name, options.group) for case, files in cases.items()}
    patients = sorted(set(patient.values()))
    splits = dict.fromkeys(patients, "")
    if options.split_by == "patient":
        splits = _assign(patients, options, source.name)
    units = [
        Unit(case, splits[patient[case]], files, "", patient[case], (i,))
        for i, (case, files) in enumerate(sorted(cases.items()))
    ]
    read = functools.partial(read_slices, options=options, image_size=prepare.image_size)
    notes = [] if options.group else _namesakes(cases)
    return Listing(
        CLASSES, by_split(units), read, options.model_dump(), tuple(dropped), tuple(notes)
    )


def _namesakes(cases: Iterable[str]) -> list[str]:
    """Note cases of one name in several folders, which may be one patient in two splits."""
    alike: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        alike[PurePosixPath(case).name.lower()].append(case)
    found = sorted(names for names in alike.values() if len(names) > 1)
    if not found:
        return []
    return [
        f"{len(found)} names stand for cases in several folders, such as {' and '.join(found[0])}; "
        "if they are examinations of one patient, set options.group, which keeps them in one split"
    ]


def _patient(case: str, image: str, pattern: str | None) -> str:
    if pattern is not None:
        return group_of(image, pattern)
    match = FOLLOW_UP.fullmatch(PurePosixPath(case).name)
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

    `DataError` names the case and the file if a volume is damaged, constant, not finite, not
    three-dimensional or without a background, or if the segmentation has no labels or another grid.
    """
    image, seg = unit.files
    where = f"case {unit.key}: "
    data = load(image), load(seg)
    with _naming(f"{where}{image.name}"):
        values, affine = read_volume(data[0])
        brain = find_brain(values)
    with _naming(f"{where}{seg.name}"):
        labels, other_affine = read_volume(data[1])
        tumour = find_tumour(labels)
    if values.shape != labels.shape or not np.allclose(affine, other_affine, atol=1e-2):
        raise DataError(
            f"{where}{seg.name} {labels.shape} is on another grid than {image.name} "
            f"{values.shape}; resample it to the image's, by nearest neighbour"
        )
    with _naming(f"{where}{image.name}"):
        gray = _normalise(values, brain, options.clip)
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


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Turn a `ValueError` into a `DataError` that says where it happened."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _normalise(values: np.ndarray, brain: np.ndarray, clip: list[float]) -> np.ndarray:
    """Scale the clipped range of the brain's values to uint8, 0 to 255; 0 elsewhere."""
    low, high = np.percentile(values[brain], clip)
    if not high > low:
        raise ValueError("the brain has one value only")
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
    fits=lambda names: any(parse_name(PurePosixPath(name).name) for name in names),
    looks_for=PAIR,
)
