"""Writing a prepared dataset: every image of a listing into shards, then the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dxai.datasets import images
from dxai.datasets.base import SPLITS, DataError, Listing, Sample
from dxai.datasets.shards import MANIFEST, ROW_GROUP, SCHEMA, sha256
from dxai.files import atomic_folder, write_json
from dxai.progress import Progress


class _SplitWriter:
    """Writes the shards of one split; holds at most one row group of encoded images."""

    def __init__(self, folder: Path, split: str, shard_images: int) -> None:
        self.folder, self.split, self.shard_images = folder, split, shard_images
        self.names: list[str] = []
        self._rows: list[dict[str, Any]] = []
        self._file: pq.ParquetWriter | None = None
        self._in_shard = 0

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._in_shard += 1
        if self._in_shard == self.shard_images:
            self.close()
        elif len(self._rows) == ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Finish the shard that is being written, if any."""
        if self._rows:
            self._flush()
        if self._file is not None:
            self._file.close()
        self._file, self._in_shard = None, 0

    def abandon(self) -> None:
        """Let go of the file; what that raises on a full disk would hide what went wrong first."""
        if self._file is not None:
            with contextlib.suppress(pa.ArrowException, OSError):
                self._file.close()

    def _flush(self) -> None:
        if self._file is None:
            self.names.append(f"{self.split}-{len(self.names):05d}.parquet")
            self._file = pq.ParquetWriter(
                self.folder / self.names[-1],
                SCHEMA,
                compression={c: "none" if c == "image" else "zstd" for c in SCHEMA.names},
                use_dictionary=["label", "group"],
                write_statistics=False,
                write_page_checksum=True,
            )
        self._file.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows.clear()


def write_dataset(
    out: Path | str, listing: Listing, about: dict[str, Any], shard_images: int
) -> dict[str, Any]:
    """Read every image of a listing into shards; `out` appears, or changes, only when complete.

    Parameters
    ----------
    out : path
        The folder to write.
    listing : Listing
        What a layout found.
    about : dict
        ``name``, ``layout``, ``channels`` and ``image_size``, which go into the manifest.
    shard_images : int
        Images in a shard.

    Returns
    -------
    dict
        The manifest: `about`, ``class_names``, ``options``, ``counts`` (split -> class -> images)
        and ``files`` (shard -> SHA-256).

    Raises
    ------
    DataError
        For an image that cannot be read, two images of the same id, a split without images, a
        disk that cannot be written.
    """
    try:
        with atomic_folder(out) as folder:
            files, counts = _write_shards(folder, listing, str(about["name"]), shard_images)
            manifest = about | {
                "class_names": list(listing.class_names),
                "options": listing.options,
                "counts": counts,
                "files": {name: sha256(folder / name) for name in files},
            }
            write_json(folder / MANIFEST, manifest)
    except OSError as error:
        raise DataError(f"{out}: could not be written ({error})") from error
    return manifest


def _write_shards(
    folder: Path, listing: Listing, name: str, shard_images: int
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Write all images; returns the names of the shards and the images of each split and class."""
    counts = {split: dict.fromkeys(listing.class_names, 0) for split in SPLITS}
    writers = {split: _SplitWriter(folder, split, shard_images) for split in SPLITS}
    try:
        for sample in _unique(listing, Progress(f"prepare {name}", listing.total, unit="images")):
            writers[sample.split].add(_row(sample, listing.class_names))
            counts[sample.split][sample.label] += 1
        for writer in writers.values():
            writer.close()
    except BaseException:
        for writer in writers.values():
            writer.abandon()
        raise
    for split in SPLITS:
        if not any(counts[split].values()):
            raise DataError(f"split {split} has no images")
    return [name for split in SPLITS for name in writers[split].names], counts


def _unique(listing: Listing, progress: Progress) -> Iterator[Sample]:
    seen: set[str] = set()
    for sample in listing:
        if sample.id in seen:
            raise DataError(f"{sample.source}: a second image with the id {sample.id!r}")
        seen.add(sample.id)
        yield sample
        progress.update(len(seen))


def _row(sample: Sample, class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "id": sample.id,
        "label": class_names.index(sample.label),
        "group": sample.group,
        "source": sample.source,
        "image": images.encode(sample.image),
    }
