"""A prepared dataset on disk and its reader.

A dataset is a folder with `manifest.json` and `<split>-00000.parquet`, `<split>-00001.parquet` ..,
each with the columns id, label, group, source and image (PNG). Any Parquet reader opens them:
`pandas.read_parquet("train-00000.parquet")`.
"""

from __future__ import annotations

import contextlib
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
from dxai.datasets.base import SPLITS, DataError
from dxai.files import read_json
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
        Read every shard once and compare it with its hash in the manifest. Without it, damage is
        still found by Parquet's own checksums, when the damaged part is read.

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
        if not self._paths:
            raise DataError(f"{self.folder}: no shards of the split {split}")
        if verify:
            self._verify()
        self._open()
        self._cache: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._cached = 0

    def _verify(self) -> None:
        for path in self._paths:
            if sha256(path) != self.manifest["files"][path.name]:
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

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The images at these places of the split, in this order; only they are decoded."""
        places = [int(i) for i in indices]
        # Visiting them in the order of the disk reads each row group once, however small the cache.
        pixels = {i: self._decode(i) for i in sorted(set(places))}
        stack = np.stack([pixels[i] for i in places])
        stack = stack[:, None] if self.channels == 1 else stack.transpose(0, 3, 1, 2)
        return Batch(
            images=to_unit_range(torch.from_numpy(np.ascontiguousarray(stack))),
            labels=torch.from_numpy(self.labels[places]),
            index=torch.tensor(places, dtype=torch.int64),
            ids=[self.ids[i] for i in places],
            groups=[self.groups[i] for i in places],
        )

    def batches(
        self, batch_size: int, indices: Sequence[int] | np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Batches over `indices` (default: all, in order); the last may be smaller."""
        chosen = range(len(self)) if indices is None else indices
        for start in range(0, len(chosen), batch_size):
            yield self.batch(chosen[start : start + batch_size])

    def _decode(self, i: int) -> np.ndarray:
        try:
            image = images.decode(self.encoded(i))
        except images.UNREADABLE as error:
            raise DataError(f"{self.folder}: image {self.ids[i]!r} is damaged ({error})") from error
        size = (self.image_size, self.image_size)
        if image.shape != (size if self.channels == 1 else (*size, self.channels)):
            raise DataError(f"{self.folder}: image {self.ids[i]!r} has shape {image.shape}")
        return image

    def _row_group(self, place: int) -> pa.ChunkedArray:
        """The encoded images of one row group, through the cache."""
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place]
        path, within = self._row_groups[place]
        with _parquet(path) as file:
            column = file.read_row_group(within, ["image"], use_threads=False)["image"]
        self._cache[place] = column
        self._cached += column.nbytes
        while self._cached > self.cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return column


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        for key in ("class_names", "channels", "image_size", "files"):
            manifest[key]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the stage prepare first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no manifest of a prepared dataset ({error!r})") from error
    missing = [name for name in manifest["files"] if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: missing {', '.join(missing)}; run the stage prepare again")
    return manifest


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a shard; what pyarrow raises names no file."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged shard ({error}); run the stage prepare again") from error
