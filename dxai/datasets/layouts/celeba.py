"""Layout `celeba`: faces, female or male, from CelebA, CelebA-HQ or CelebAMask-HQ.

Class folders as StarGAN v2 splits CelebA-HQ (`train,val/{female,male}/*.jpg`; val is the test set),
or images with a table of their attributes, anywhere in the source: `list_attr_celeba` with
`list_eval_partition`, .txt or .csv, or `CelebAMask-HQ-attribute-anno.txt`. The latter is split as
CelebA is if `list_eval_partition` and `CelebA-HQ-to-CelebA-mapping.txt` are there, else at random.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from pydantic import Field

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import DataError, Dropped, File, Layout, Listing
from dxai.datasets.images import EXTENSIONS
from dxai.datasets.layouts.celeba_tables import (
    CLASSES,
    Row,
    read_classes,
    read_origins,
    read_splits,
)
from dxai.datasets.layouts.class_folders import Files, classes_of, reader, train_and_test
from dxai.datasets.samples import celeba
from dxai.datasets.source import Source
from dxai.datasets.splits import HoldOutOptions, by_split, draw_splits, hold_out

FOLDERS = {"train": ("train",), "test": ("val", "test")}
CLASS_FOLDERS = {"female": ("female", "Female"), "male": ("male", "Male")}
ATTRIBUTES = "list_attr_celeba"
ATTRIBUTES_HQ = "celebamask-hq-attribute-anno"
PARTITION = "list_eval_partition"
ORIGINS = "celeba-hq-to-celeba-mapping"
LOOKS_FOR = (
    f"{ATTRIBUTES}.txt or .csv, CelebAMask-HQ-attribute-anno.txt, or train/ with the folders "
    "female and male"
)
PARTS = "celebamask-hq-mask-anno"
"""Folder of CelebAMask-HQ with a mask for each part of each face."""
NOT_LISTED = "an image that the table of attributes does not name"


class CelebaOptions(HoldOutOptions):
    """Options of the layout `celeba`; `test` is for CelebAMask-HQ, which has no split."""

    test: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of each class that goes to the test split of a release without splits.",
    )


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the faces.

    Raise `DataError` if a table is missing, malformed or there twice, or names other images than
    another table or the folder.
    """
    options = parse(CelebaOptions, dataset.options, "options")
    files = Files(source)
    tables = {
        table: _only(files, names)
        for table, names in (
            (ATTRIBUTES, (ATTRIBUTES, ATTRIBUTES_HQ)),
            (PARTITION, (PARTITION,)),
            (ORIGINS, (ORIGINS,)),
        )
    }
    attributes = tables[ATTRIBUTES]
    if attributes is None:
        if tables[PARTITION] or tables[ORIGINS] or not _has_train(files):
            raise DataError(f"{source.name}: there must be {LOOKS_FOR}")
        return train_and_test(files, dataset, prepare, FOLDERS, CLASS_FOLDERS, options)
    classes = read_classes(source, attributes)
    images = _images(files)
    for name, row in classes.items():
        if name not in images:
            raise DataError(f"{row.where} does not exist below {source.name}")
    splits = _splits(source, classes, attributes, tables[PARTITION], tables[ORIGINS], options)
    units = [files.unit(images[name], splits[name], row.value) for name, row in classes.items()]
    if "validation" not in splits.values():
        units = hold_out(units, CLASSES, options.validation, options.seed)
    extra = [file.name for name, file in images.items() if name not in classes]
    return Listing(
        CLASSES,
        by_split(units),
        reader(dataset, prepare),
        options.model_dump(),
        tuple(Dropped.of(NOT_LISTED, extra)),
    )


def fits(names: Collection[str]) -> bool:
    """Whether there is a table of attributes, or training images of exactly the two classes."""
    if {ATTRIBUTES, ATTRIBUTES_HQ} & set(map(_stem, names)):
        return True
    return classes_of(names, FOLDERS["train"]) == set(CLASSES)


def _splits(
    source: Source,
    classes: Mapping[str, Row],
    attributes: File,
    partition: File | None,
    origins: File | None,
    options: CelebaOptions,
) -> dict[str, str]:
    """Split of each image, from the partition; at random for CelebA-HQ without it."""
    is_hq = _stem(attributes.name) == ATTRIBUTES_HQ
    if partition is None:
        if not is_hq:
            raise DataError(f"{source.name}: no {PARTITION}.txt (or .csv)")
        return _draw(classes, options)
    splits = read_splits(source, partition)
    if not is_hq:
        for rows, others, table in (
            (classes, splits, partition.name),
            (splits, classes, attributes.name),
        ):
            for name, row in rows.items():
                if name not in others:
                    raise DataError(f"{row.where} is not in {table}")
        return {name: row.value for name, row in splits.items()}
    if origins is None:
        raise DataError(
            f"{source.name}: {partition.name} splits CelebA; to split CelebA-HQ by it, add "
            "CelebA-HQ-to-CelebA-mapping.txt, else take it out of the source"
        )
    found = {}
    origin_of = read_origins(source, origins)
    for name, row in classes.items():
        if name not in origin_of:
            raise DataError(f"{row.where} is not in {origins.name}")
        origin = origin_of[name]
        if origin.value not in splits:
            raise DataError(f"{origin.where}: {origin.value} is not in {partition.name}")
        found[name] = splits[origin.value].value
    return found


def _has_train(files: Files) -> bool:
    return any(
        folder.lower() in FOLDERS["train"] for name in files.all for folder in name.split("/")[:-1]
    )


def _draw(classes: Mapping[str, Row], options: CelebaOptions) -> dict[str, str]:
    """Assign a share of each class to test, and everything else to train."""
    found: dict[str, str] = {}
    for label in CLASSES:
        names = sorted(name for name, row in classes.items() if row.value == label)
        test = max(1, round(options.test * len(names)))
        splits = draw_splits(len(names), test, 0, options.seed, f"celeba/{label}")
        found |= zip(names, splits, strict=True)
    return found


def _stem(name: str) -> str:
    """Name of a table, in lower case, without folder and suffix; empty for other files."""
    path = PurePosixPath(name.lower())
    return path.stem if path.suffix in (".txt", ".csv") else ""


def _only(files: Files, stems: Collection[str]) -> File | None:
    """Find the table of one of these names; two raise `DataError`."""
    found = [file for name, file in files.all.items() if _stem(name) in stems]
    if len(found) > 1:
        raise DataError(
            f"{files.source.name}: {found[0].name} and {found[1].name} are two tables for the "
            "same; keep one, or let source name the folder of one release"
        )
    return found[0] if found else None


def _images(files: Files) -> dict[str, File]:
    """Map names without folder and suffix to images; a repeated name raises `DataError`."""
    found: dict[str, File] = {}
    for name, file in files.all.items():
        path = PurePosixPath(name)
        if path.suffix.lower() not in EXTENSIONS or path.parts[0] == "truth":
            continue
        if PARTS in (part.lower() for part in path.parts):
            continue
        if (other := found.setdefault(path.stem, file)) is not file:
            raise DataError(
                f"{files.source.name}: {other.name} and {name} have the same name; keep one, or "
                "let source name the folder of one release"
            )
    return found


LAYOUT = Layout(
    find,
    celeba.render_sample,
    "CelebA, Liu et al. 2015; CelebA-HQ as split by StarGAN v2 (Choi et al. 2020)",
    "non-commercial research only (CelebA's agreement)",
    lambda options: (28000, 2000),
    exact=True,
    options=CelebaOptions,
    fits=fits,
    looks_for=f"{LOOKS_FOR}, and no other",
)
