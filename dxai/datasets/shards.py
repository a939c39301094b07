"""Prepared images on disk: Parquet shards of encoded images, a manifest, and their reader.

A dataset is a folder with `manifest.json` and `<split>-00000.parquet`, `<split>-00001.parquet` ..,
each with the columns id, label, group, source and image (PNG). Any Parquet reader opens them:
`pandas.read_parquet("train-00000.parquet")`.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dxai.datasets import images
from dxai.datasets.base import SPLITS, DataError, Listing, Sample
from dxai.files import atomic_folder, read_json, write_json
from dxai.progress import Progress
from dxai.types import Batch, to_unit_range

MANIFEST = "manifest.json"
ROW_GROUP = 100
"""Images that are written, read and cached together."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.int64()),
        ("group", pa.string()),
        ("source", pa.string()),
        ("image", pa.binary()),
    ]
)


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

    def _flush(self) -> None:
        if self._file is None:
            self.names.append(f"{self.split}-{len(self.names):05d}.parquet")
            self._file = pq.ParquetWriter(
                self.folder / self.names[-1],
                SCHEMA,
                compression={c: "none" if c == "image" else "zstd" for c in SCHEMA.names},
                use_dictionary=["label", "group"],
                write_statistics=False,
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
        For an image that cannot be read, two images of the same id, a split without images.
    """
    counts = {split: dict.fromkeys(listing.class_names, 0) for split in SPLITS}
    with atomic_folder(out) as folder:
        writers = {split: _SplitWriter(folder, split, shard_images) for split in SPLITS}
        try:
            for sample in _unique(listing, Progress(f"prepare {about['name']}", listing.total)):
                writers[sample.split].add(_row(sample, listing.class_names))
                counts[sample.split][sample.label] += 1
        finally:
            for writer in writers.values():
                writer.close()
        for split in SPLITS:
            if not any(counts[split].values()):
                raise DataError(f"split {split} has no images")
        files = [name for split in SPLITS for name in writers[split].names]
        manifest = about | {
            "class_names": list(listing.class_names),
            "options": listing.options,
            "counts": counts,
            "files": {name: _sha256(folder / name) for name in files},
        }
        write_json(folder / MANIFEST, manifest)
    return manifest


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


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ShardedDataset:
    """One split of a prepared dataset, read back in bounded memory.

    Labels, ids and groups are kept; images stay encoded, and at most `cache_bytes` of them are
    held, those used last.

    Parameters
    ----------
    folder : path
        What the stage `prepare` wrote.
    split : {'train', 'validation', 'test'}
    cache_bytes : int
        Bound of the encoded images in memory; one row group is always held.
    verify : bool
        Read every shard once and compare it with its hash in the manifest.

    Attributes
    ----------
    class_names : list of str
    channels, image_size : int
    labels : ndarray
        int64, (N,).
    ids, groups : list of str

    Raises
    ------
    DataError
        If the folder, the manifest or a shard is missing or damaged.

    Examples
    --------
    >>> data = ShardedDataset("data/prepared/textures", "test")    # doctest: +SKIP
    >>> data.batch([0, 1]).images.shape                            # doctest: +SKIP
    torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self, folder: Path | str, split: str, cache_bytes: int = 1 << 30, verify: bool = False
    ) -> None:
        self.folder, self.split, self.cache_bytes = Path(folder), split, cache_bytes
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}; valid are {', '.join(SPLITS)}")
        self.manifest = _read_manifest(self.folder)
        self.class_names: list[str] = self.manifest["class_names"]
        self.channels: int = self.manifest["channels"]
        self.image_size: int = self.manifest["image_size"]
        self._paths = [self.folder / n for n in self.manifest["files"] if n.startswith(split)]
        if verify:
            self._verify()
        self._open()
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._cached = 0

    def _verify(self) -> None:
        for path in self._paths:
            if _sha256(path) != self.manifest["files"][path.name]:
                raise DataError(f"{path}: its content is not what the manifest's hash says")

    def _open(self) -> None:
        """Read all columns but the images, and where each row group starts."""
        tables: list[pa.Table] = []
        self._row_groups: list[tuple[Path, int]] = []
        sizes = [0]
        for path in self._paths:
            with _parquet(path) as file:
                tables.append(file.read(["id", "label", "group"], use_threads=False))
                for place in range(file.num_row_groups):
                    self._row_groups.append((path, place))
                    sizes.append(file.metadata.row_group(place).num_rows)
        table = pa.concat_tables(tables)
        self._starts = np.cumsum(sizes)
        self.labels: np.ndarray = table["label"].to_numpy().astype(np.int64)
        self.ids: list[str] = table["id"].to_pylist()
        self.groups: list[str] = table["group"].to_pylist()

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self, i: int) -> bytes:
        """Image `i` of the split as PNG."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        place = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._row_group(place)[i - int(self._starts[place])].as_py()
