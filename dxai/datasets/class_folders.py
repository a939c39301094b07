"""What the layouts of one image a file share: class folders, held-out groups, reading a file.

Beside the images a source may say what makes their class: `truth/mask/<path>.png`, white where it
is, or `truth/neutral/<path>.png`, the image without it, both under the image's own path.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dxai import draws
from dxai.datasets.base import SPLITS, DataError, Dropped, File, Load, Sample, Unit
from dxai.datasets.images import EXTENSIONS, open_image, square
from dxai.datasets.source import Source, suffix

TRUTH = ("mask", "neutral")
NO_IMAGE = "no image by its suffix"

Aliases = Mapping[str, Sequence[str]]
"""Split to the names, in lower case, that its folder may have."""


class Files:
    """The files of a source by their folders.

    Parameters
    ----------
    source : Source
        Is listed once.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.all = {file.name: file for file in source.files()}
        self.tree: dict[str, list[File]] = defaultdict(list)
        """Top folder, or folder of a folder (`train`, `train/cat`), to all files below it."""
        for name, file in self.all.items():
            parts = name.split("/")
            for depth in range(1, min(len(parts), 3)):
                self.tree["/".join(parts[:depth])].append(file)

    def folders(self, within: str = "") -> list[str]:
        """Names of the folders at the top, or in a top folder, empty ones included."""
        found = {*self.tree, *self.source.empty}
        if not within:
            return sorted({name.split("/")[0] for name in found if name})
        return sorted({name.split("/")[1] for name in found if name.startswith(f"{within}/")})

    def images(self, folder: str) -> tuple[list[File], list[File]]:
        """The image files below a class folder, and its other files.

        Raises
        ------
        DataError
            If there is no image.
        """
        images: list[File] = []
        others: list[File] = []
        for file in self.tree[folder]:
            (images if suffix(file.name) in EXTENSIONS else others).append(file)
        if not images:
            kinds = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{self.source.name}/{folder}: no images ({kinds}) in this class")
        return images, others

    def unit(self, file: File, split: str, label: str, group: str | None = None) -> Unit:
        """The unit of an image file, with what is known of its class-distinct part."""
        known = {}
        for kind in TRUTH:
            path = PurePosixPath("truth", kind, file.name).with_suffix(".png").as_posix()
            if path in self.all:
                known[kind] = self.all[path]
        files = (file, *known.values())
        return Unit(file.name, split, files, label, group or file.name, tuple(known))


def read_file(unit: Unit, load: Load, image_size: int, channels: int) -> Iterator[Sample]:
    """The one sample of a unit that `Files.unit` made: the centred square of its image."""
    image = open_image(load(unit.files[0]), unit.key, channels)
    known = {}
    for kind, file in zip(unit.about, unit.files[1:], strict=True):
        is_mask = kind == "mask"
        found = open_image(load(file), file.name, 1 if is_mask else channels)
        if found.size != image.size:
            raise DataError(f"{file.name}: {found.size} pixels, its image has {image.size}")
        known[kind] = square(found, image_size, is_mask)
    yield Sample(
        square(image, image_size),
        unit.split,
        unit.label,
        unit.key,
        unit.group,
        unit.key,
        size=image.size,
        **known,
    )


def find_splits(files: Files, aliases: Aliases) -> dict[str, str]:
    """Folder of each split that there is.

    Raises
    ------
    DataError
        Without a folder for train or test, or with two for the same split.
    """
    splits: dict[str, str] = {}
    for folder in files.folders():
        for split, names in aliases.items():
            if folder.lower() in names:
                if split in splits:
                    raise DataError(
                        f"{files.source.name}: {splits[split]} and {folder} mean the same"
                    )
                splits[split] = folder
    for split in ("train", "test"):
        if split not in splits:
            names = " or ".join(aliases[split])
            raise DataError(f"{files.source.name}: no {split} folder (named {names})")
    return {split: splits[split] for split in SPLITS if split in splits}


def find_classes(
    files: Files, splits: Mapping[str, str], chosen: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Class names in alphabetical order, the same in every split.

    Raises
    ------
    DataError
        For a chosen class that is not there, a class that is not in every split, or only one.
    """
    root = files.source.name
    names = {split: set(files.folders(folder)) for split, folder in splits.items()}
    train = f"{root}/{splits['train']}"
    if not names["train"]:
        raise DataError(f"{train}: no class folders")
    if chosen is not None:
        for name in chosen:
            if name not in names["train"]:
                valid = ", ".join(sorted(names["train"]))
                raise DataError(f"{train}: no class {name!r}; there are {valid}")
        names = {split: found & set(chosen) for split, found in names.items()}
    for split, found in names.items():
        for name in sorted(found - names["train"]):
            raise DataError(f"{root}/{splits[split]}/{name}: class {name!r} is absent from train")
        for name in sorted(names["train"] - found):
            raise DataError(f"{root}/{splits[split]}: class {name!r} of train is absent")
    if len(names["train"]) < 2:
        raise DataError(f"{root}: only one class, {min(names['train'])!r}; it takes at least two")
    return tuple(sorted(names["train"]))


def dropped_files(others: Iterable[File], split: str, label: str) -> list[Dropped]:
    """Files that are no images, counted."""
    count = len(list(others))
    return [Dropped(NO_IMAGE, count, split, label)] if count else []


def by_split(units: Iterable[Unit]) -> list[Unit]:
    """Test first, so that of two equal files it is the training image that may be dropped."""
    order = {"": 0, "test": 1, "validation": 2, "train": 3}
    return sorted(units, key=lambda unit: (order[unit.split], unit.label, unit.key))


def hold_out(units: Sequence[Unit], classes: Sequence[str], share: float, seed: int) -> list[Unit]:
    """Move whole groups of train to validation.

    Raises
    ------
    DataError
        For a class with too few groups.
    """
    sizes: dict[str, Counter[str]] = defaultdict(Counter)  # group -> class -> images
    for unit in units:
        if unit.split == "train":
            sizes[unit.group][unit.label] += 1
    held = choose_groups(sizes, classes, share, seed)
    for label in classes:
        groups = {group for group in sizes if label in sizes[group]}
        if groups <= held:
            raise DataError(
                f"class {label!r}: {len(groups)} group(s) in train, too few to hold some out "
                "for validation; add images or a validation folder"
            )
    return [
        replace(unit, split="validation") if unit.split == "train" and unit.group in held else unit
        for unit in units
    ]


def choose_groups(
    sizes: Mapping[str, Counter[str]], classes: Sequence[str], share: float, seed: int
) -> set[str]:
    """Groups that give each class its share of validation images as nearly as they allow.

    The smallest class chooses first: it has the fewest ways to reach its share (Sechidis et al.
    2011, iterative stratification).
    """
    wanted = {label: share * sum(size[label] for size in sizes.values()) for label in classes}
    held: set[str] = set()
    count: Counter[str] = Counter()
    for label in sorted(classes, key=lambda label: wanted[label]):
        groups = sorted(group for group in sizes if label in sizes[group])
        order = draws.permutation(seed, f"folder/{label}", 0, len(groups))
        free = [groups[place] for place in order if groups[place] not in held]
        for group in free:
            if _fits(sizes[group], count, wanted):
                held.add(group)
                count += sizes[group]
        if free and not count[label]:  # one at least, although it is more than the share
            held.add(free[0])
            count += sizes[free[0]]
    return held


def _fits(size: Counter[str], count: Counter[str], wanted: Mapping[str, float]) -> bool:
    """Whether a group brings each of its classes nearer to the wanted number of images."""
    return all(count[label] + n / 2 <= wanted[label] for label, n in size.items())
