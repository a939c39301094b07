"""Layout `folder`: any user's `<split>/<class>/` tree of image files.

Split folders are named train or training, val, valid or validation, test or testing, in any case.
Without a validation folder, a share of train is held out. Images may lie at any depth below their
class folder; hidden files and folders are skipped.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dxai import draws
from dxai.datasets.base import SPLITS, DataError, Listing, Sample, expand
from dxai.datasets.images import EXTENSIONS, read_image
from dxai.params import DatasetParams, ParamsError, PrepareParams, parse

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class FolderOptions:
    """Options of the layout.

    Attributes
    ----------
    validation : float
        Share of each class's training images that is held out when there is no validation folder.
    seed : int
        Of that draw.
    group : str or None
        A regular expression searched in each image's path relative to `source`; what its brackets
        capture is the image's group, and a group is held out as a whole. None: images are
        independent.
    classes : list of str or None
        The class folders to use; None takes all.
    """

    validation: float = 0.15
    seed: int = 0
    group: str | None = None
    classes: list[str] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ParamsError(f"validation is {self.validation}; it must be between 0 and 1")
        if self.group is not None:
            _check_pattern(self.group)


@dataclass(frozen=True)
class _File:
    """An image file: its path relative to the source, split, class and group."""

    path: str
    split: str
    label: str
    group: str


def folder(dataset: DatasetParams, prepare: PrepareParams) -> Listing:
    """List the images below `source`.

    Raises
    ------
    DataError
        For a missing folder or split, fewer than two classes, a class without images or not in
        every split, a path without a group, an image that cannot be read.
    ParamsError
        For an unknown or impossible option.
    """
    options = parse(FolderOptions, dataset.options, "options", complete=False)
    root = expand(dataset.source)
    splits = _find_splits(root)
    classes = _find_classes(root, splits, options.classes)
    files: list[_File] = []
    ignored: list[str] = []
    for split, path in splits.items():
        for label in classes:
            found, others = _find_images(root, path / label)
            files += [_File(name, split, label, _group(name, options.group)) for name in found]
            ignored += others
    if "validation" not in splits:
        files = _hold_out(files, classes, options)
    files.sort(key=lambda file: SPLITS.index(file.split))  # stable: class and path stay in order
    samples = _read(root, files, prepare.image_size, dataset.channels)
    return Listing(classes, len(files), samples, asdict(options), _notes(files, ignored))


def _read(root: Path, files: Sequence[_File], size: int, channels: int) -> Iterator[Sample]:
    for file in files:
        image = read_image(root / file.path, size, channels)
        yield Sample(image, file.split, file.label, file.path, file.group, file.path)


def _subfolders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _find_splits(root: Path) -> dict[str, Path]:
    """Folder of each split that there is."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    splits: dict[str, Path] = {}
    for path in _subfolders(root):
        for split, names in ALIASES.items():
            if path.name.lower() in names:
                if split in splits:
                    raise DataError(f"{root}: {splits[split].name} and {path.name} mean the same")
                splits[split] = path
    for split in ("train", "test"):
        if split not in splits:
            raise DataError(f"{root}: no {split} folder (named {' or '.join(ALIASES[split])})")
    return {split: splits[split] for split in SPLITS if split in splits}


def _find_classes(
    root: Path, splits: dict[str, Path], chosen: Sequence[str] | None
) -> tuple[str, ...]:
    """Class names in alphabetical order, the same in every split."""
    names = {split: {p.name for p in _subfolders(path)} for split, path in splits.items()}
    if not names["train"]:
        raise DataError(f"{splits['train']}: no class folders")
    if chosen is not None:
        for name in chosen:
            if name not in names["train"]:
                valid = ", ".join(sorted(names["train"]))
                raise DataError(f"{splits['train']}: no class {name!r}; there are {valid}")
        names = {split: found & set(chosen) for split, found in names.items()}
    for split, found in names.items():
        for name in sorted(found - names["train"]):
            raise DataError(f"{splits[split] / name}: class {name!r} is absent from train")
        for name in sorted(names["train"] - found):
            raise DataError(f"{splits[split]}: class {name!r} of train is absent")
    if len(names["train"]) < 2:
        raise DataError(f"{root}: only one class, {min(names['train'])!r}; it takes at least two")
    return tuple(sorted(names["train"]))


def _find_images(root: Path, path: Path) -> tuple[list[str], list[str]]:
    """Paths, relative to `root`, of a class folder's images and of its other files."""
    images: list[str] = []
    others: list[str] = []
    for item in sorted(path.rglob("*")):
        parts = item.relative_to(path).parts
        if item.is_dir() or any(part.startswith(".") for part in parts):
            continue
        name = item.relative_to(root).as_posix()
        if not _is_text(name):
            raise DataError(f"{root}: the file name {name!r} is not valid UTF-8")
        (images if item.suffix.lower() in EXTENSIONS else others).append(name)
    if not images:
        raise DataError(f"{path}: no images ({', '.join(sorted(EXTENSIONS))}) in this class")
    return images, others


def _is_text(name: str) -> bool:
    """Whether a file name is text; on Linux it may be any bytes, which Parquet cannot keep."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ParamsError(f"group {pattern!r} is no regular expression: {error}") from None
    if not groups:
        raise ParamsError(f"group {pattern!r} captures nothing; put brackets around the group")


def _group(path: str, pattern: str | None) -> str:
    if pattern is None:
        return path
    match = re.search(pattern, path)
    if match is None:
        raise DataError(f"{path}: the group pattern {pattern!r} is not found in this path")
    return "/".join(part or "" for part in match.groups())


def _hold_out(
    files: Sequence[_File], classes: Sequence[str], options: FolderOptions
) -> list[_File]:
    """Move whole groups of train to validation."""
    sizes: dict[str, Counter[str]] = defaultdict(Counter)  # group -> class -> images
    for file in files:
        if file.split == "train":
            sizes[file.group][file.label] += 1
    held = _choose_groups(sizes, classes, options)
    for label in classes:
        groups = {group for group in sizes if label in sizes[group]}
        if groups <= held:
            raise DataError(
                f"class {label!r}: {len(groups)} group(s) in train, too few to hold some out "
                "for validation; add images or a validation folder"
            )
    return [
        replace(file, split="validation") if file.split == "train" and file.group in held else file
        for file in files
    ]


def _choose_groups(
    sizes: Mapping[str, Counter[str]], classes: Sequence[str], options: FolderOptions
) -> set[str]:
    """Groups that give each class its share of validation images as nearly as they allow.

    The smallest class chooses first: it has the fewest ways to reach its share (Sechidis et al.
    2011, iterative stratification).
    """
    share = options.validation
    wanted = {label: share * sum(size[label] for size in sizes.values()) for label in classes}
    held: set[str] = set()
    count: Counter[str] = Counter()
    for label in sorted(classes, key=lambda label: wanted[label]):
        groups = sorted(group for group in sizes if label in sizes[group])
        order = draws.permutation(options.seed, f"folder/{label}", 0, len(groups))
        free = [groups[place] for place in order if groups[place] not in held]
        for group in free:
            if _fits(sizes[group], count, wanted):
                held.add(group)
                count += sizes[group]
        if not count[label]:  # one at least, although it is more than the share
            held.add(free[0])
            count += sizes[free[0]]
    return held


def _fits(size: Counter[str], count: Counter[str], wanted: Mapping[str, float]) -> bool:
    """Whether a group brings each of its classes nearer to the wanted number of images."""
    return all(count[label] + n / 2 <= wanted[label] for label, n in size.items())


def _notes(files: Sequence[_File], ignored: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if ignored:
        notes.append(f"{len(ignored)} files that are no images were left out, first {ignored[0]}")
    groups = {split: {f.group for f in files if f.split == split} for split in SPLITS}
    shared = groups["test"] & (groups["train"] | groups["validation"])
    if shared:
        notes.append(f"{len(shared)} groups of test are also in train, first {min(shared)!r}")
    return tuple(notes)
