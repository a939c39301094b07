"""Account for every file below a source: used, read while listing, or left out and counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import SPLITS, DataError, Dropped, File, Layout, Listing
from dxai.datasets.source import Source

UNUSED = "a file that the layout {} does not use"
UNUSED_TRUTH = (
    "ground truth of no image; expected is truth/mask/<path of the image>.png, or neutral"
)


def find_all(
    layout: Layout, source: Source | None, dataset: DatasetParams, prepare: PrepareParams
) -> Listing:
    """List a dataset's images, with every file of the source accounted for.

    Files that the layout neither puts into a unit, nor reads while listing, nor leaves out by a
    rule of its own are left out here; hidden files and empty folders become notes.

    Raises
    ------
    DataError, ParamsError
        As `layout.find` does, and for a class that can have no image in a split.
    """
    if source is None:
        return layout.find(source, dataset, prepare)
    observed = _Observed(source)
    listing = layout.find(observed, dataset, prepare)
    check_classes(listing, source.name)
    known = {file.name for unit in listing.units for file in unit.files}
    known |= observed.read.union(*(one.files for one in listing.dropped))
    rest = [file.name for file in observed.listed if file.name not in known]
    truth = [name for name in rest if name.startswith("truth/")]
    others = [name for name in rest if not name.startswith("truth/")]
    dropped = [
        *Dropped.of(UNUSED.format(dataset.layout), others),
        *Dropped.of(UNUSED_TRUTH, truth),
    ]
    notes = [
        *_note("hidden files or folders", source.hidden),
        *_note("empty folders", source.empty),
    ]
    return replace(listing, dropped=(*listing.dropped, *dropped), notes=(*listing.notes, *notes))


def check_classes(listing: Listing, where: str) -> None:
    """Raise `DataError` for a class that, by the listing alone, can have no image in a split."""
    possible = {
        (unit.split, label)
        for unit in listing.units
        for label in ([unit.label] if unit.label else unit.classes or listing.class_names)
    }
    for split in SPLITS:
        for label in listing.class_names:
            if not {(split, label), ("", label)} & possible:
                raise DataError(
                    f"{where}: class {label!r} has no images in split {split}; add some there, or "
                    "leave the class out"
                )


def _note(what: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    return [f"{what} are skipped: {len(found)}, first {found[0]}"] if found else []


class _Observed(Source):
    """A source that remembers which of its files were listed, and which were read."""

    def __init__(self, source: Source) -> None:
        super().__init__(source.name)
        self._source = source
        self.listed: list[File] = []
        self.read: set[str] = set()

    def files(self) -> list[File]:
        self.listed = self._source.files()
        self.empty, self.hidden = self._source.empty, self._source.hidden
        return self.listed

    def load(self, file: File) -> bytes:
        self.read.add(file.name)
        return self._source.load(file)
