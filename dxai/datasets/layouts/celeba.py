"""Layout `celeba`: faces, female or male, from either of the two forms of CelebA.

Class folders as StarGAN v2 splits CelebA-HQ (`train,val/{female,male}/*.jpg`; val is the test set),
or the original release: `img_align_celeba/`, `list_attr_celeba.txt` and `list_eval_partition.txt`,
anywhere in the source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.config.settings import parse
from dxai.datasets.base import SPLITS, DataError, Dropped, File, Layout, Listing, Unit
from dxai.datasets.layouts.class_folders import Files, classes_of, reader, train_and_test
from dxai.datasets.samples import celeba
from dxai.datasets.source import Source
from dxai.datasets.splits import HoldOutOptions, by_split

CLASSES = {"female": ("female",), "male": ("male",)}
FOLDERS = {"train": ("train",), "test": ("val", "test")}
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
ATTRIBUTE = "Male"
NOT_LISTED = f"not in {ATTRIBUTES}"


def find(source: Source, dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the faces.

    Raise `DataError` if the attribute or partition file is missing or malformed, or names other
    images than the other file or the folder.
    """
    options = parse(HoldOutOptions, dataset.options, "options")
    files = Files(source)
    tables = _named(files, lambda path: path.name in (ATTRIBUTES, PARTITION))
    if ATTRIBUTES not in tables and PARTITION not in tables:
        return train_and_test(files, dataset, prepare, FOLDERS, CLASSES, options)
    for name in (ATTRIBUTES, PARTITION):
        if name not in tables:
            raise DataError(f"{source.name}: no {name}")
    labels = dict(_attributes(source, tables[ATTRIBUTES]))
    partition = dict(_partition(source, tables[PARTITION]))
    if labels.keys() != partition.keys():
        odd = min(labels.keys() ^ partition.keys())
        raise DataError(f"{source.name}: {odd} stands in one of {ATTRIBUTES} and {PARTITION} only")
    images = _named(files, _is_image)
    missing = sorted(labels.keys() - images.keys())
    if missing:
        raise DataError(f"{source.name}: {missing[0]} of {ATTRIBUTES} does not exist")
    units: list[Unit] = [
        files.unit(images[name], partition[name], label) for name, label in labels.items()
    ]
    extra = [file.name for name, file in images.items() if name not in labels]
    return Listing(
        tuple(CLASSES),
        by_split(units),
        reader(dataset, prepare),
        options.model_dump(),
        tuple(Dropped.of(NOT_LISTED, extra)),
    )


def fits(names: Collection[str]) -> bool:
    """Whether there is an attribute file, or training images of exactly the two classes."""
    if ATTRIBUTES in {PurePosixPath(name).name for name in names}:
        return True
    return classes_of(names, FOLDERS["train"]) == set(CLASSES)


def _named(files: Files, wanted: Callable[[PurePosixPath], bool]) -> dict[str, File]:
    """Map names without folder to the wanted files; a repeated name is an error."""
    found: dict[str, File] = {}
    for name, file in files.all.items():
        path = PurePosixPath(name)
        if wanted(path) and (other := found.setdefault(path.name, file)) is not file:
            raise DataError(f"{files.source.name}: {name} and {other.name} have the same name")
    return found


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in (".jpg", ".png") and path.parts[0] != "truth"


def _attributes(source: Source, file: File) -> Iterator[tuple[str, str]]:
    """Yield image and class: a count, attribute names, then a line of -1 and 1 per image."""
    where, lines = _lines(source, file)
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise DataError(f"{where}, line 1: the number of images is expected")
    names = lines[1].split()
    if ATTRIBUTE not in names:
        raise DataError(f"{where}, line 2: no attribute {ATTRIBUTE}")
    column = names.index(ATTRIBUTE)
    rows = [(number, line.split()) for number, line in enumerate(lines[2:], 3) if line.strip()]
    if len(rows) != int(lines[0]):
        raise DataError(f"{where}: {len(rows)} images, but line 1 says {lines[0].strip()}")
    seen: set[str] = set()
    for number, row in rows:
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"-1", "1"}:
            raise DataError(
                f"{where}, line {number}: a name and {len(names)} of -1, 1 are expected"
            )
        if row[0] in seen:
            raise DataError(f"{where}, line {number}: {row[0]} for the second time")
        seen.add(row[0])
        yield row[0], "male" if row[1 + column] == "1" else "female"


def _partition(source: Source, file: File) -> Iterator[tuple[str, str]]:
    """Yield image and split: 0 train, 1 validation, 2 test."""
    where, lines = _lines(source, file)
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        row = line.split()
        if not row:
            continue
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise DataError(f"{where}, line {number}: a name and 0, 1 or 2 are expected")
        if row[0] in seen:
            raise DataError(f"{where}, line {number}: {row[0]} for the second time")
        seen.add(row[0])
        yield row[0], SPLITS[int(row[1])]


def _lines(source: Source, file: File) -> tuple[str, list[str]]:
    where = f"{source.name}/{file.name}"
    try:
        return where, source.load(file).decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: no text ({error})") from None


LAYOUT = Layout(
    find,
    celeba.render_sample,
    "CelebA, Liu et al. 2015; CelebA-HQ as split by StarGAN v2 (Choi et al. 2020)",
    "non-commercial research only (CelebA's agreement)",
    lambda options: (28000, 2000),
    exact=True,
    options=HoldOutOptions,
    fits=fits,
    looks_for=f"{ATTRIBUTES}, or train/ with the folders female and male, and no other",
)
