"""Reader of a prepared dataset, local or remote, in bounded memory."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from dxai.datasets import images
from dxai.datasets.base import SPLITS, DataError
from dxai.datasets.remote_cache import Folder, open_folder
from dxai.paths import MANIFEST, index_name
from dxai.types import Images, channels_first, to_unit_range
from dxai.utils.storage import StorageError


class ShardedDataset(Images):
    """One split of a prepared dataset.

    Labels, ids and groups are kept in memory; images stay encoded, and at most `cache_bytes` of
    them are held, the last used. A shard of a remote dataset is fetched on first use and compared
    with its hash; Parquet's checksums find damage on the local disk.

    Parameters
    ----------
    folder : path or str
        Output of the stage `prepare`: a local folder, or a URL (``s3://bucket/prefix``), whose
        files are cached on this machine (`dxai.datasets.remote_cache`).
    split : {'train', 'validation', 'test'}
    cache_bytes : int
        Limit of the encoded images in memory; one row group is always held.

    Attributes
    ----------
    labels : ndarray
        int64, (N,).
    blocks : ndarray
        int64, (R + 1,): the start of each of the R row groups, and the end.
    resident : bool
        Whether all images fit into `cache_bytes`, so that they may be visited in any order.
    window : int
        Row groups that fit into half of `cache_bytes`.

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

    def __init__(self, folder: Path | str, split: str, cache_bytes: int = 1 << 30) -> None:
        self.split, self.cache_bytes = split, cache_bytes
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}; valid are {', '.join(SPLITS)}")
        self.folder = open_folder(folder)
        self.manifest = _read_manifest(self.folder, split)
        self.class_names: list[str] = self.manifest["class_names"]
        self.channels: int = self.manifest["channels"]
        self.image_size: int = self.manifest["image_size"]
        self._shards: list[str] = self.manifest["shards"][split]
        self._open()
        size = sum(self.manifest["bytes"][name] for name in self._shards)
        self.resident = size <= cache_bytes
        self.window = max(1, cache_bytes // 2 * len(self._row_groups) // max(size, 1))
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._cached = 0

    def _open(self) -> None:
        """Read labels, ids, groups and the start of each row group from the index."""
        with self._parquet(index_name(self.split)) as file:
            table = file.read(["id", "label", "group", "shard", "row_group"], use_threads=False)
        self.labels: np.ndarray = table["label"].to_numpy().astype(np.int64)
        self.ids: list[str] = table["id"].to_pylist()
        self.groups: list[str] = table["group"].to_pylist()
        stored_in = np.stack([table["shard"].to_numpy(), table["row_group"].to_numpy()], 1)
        starts = 1 + (stored_in[1:] != stored_in[:-1]).any(1).nonzero()[0]
        self.blocks = np.concatenate([[0], starts, [len(stored_in)]]).astype(np.int64)
        self._row_groups = [(int(s), int(g)) for s, g in stored_in[self.blocks[:-1]]]

    def encoded(self, i: int, column: str = "image") -> bytes | None:
        """Image `i` as PNG or JPEG, or its `mask` or `neutral`, None if unknown."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        block = int(np.searchsorted(self.blocks, i, side="right")) - 1
        return self._row_group(block)[column][i - int(self.blocks[block])].as_py()

    def having(self, column: str) -> list[int]:
        """Indices of the images whose ``mask`` or ``neutral`` image is known."""
        return [i for i in range(len(self)) if self.encoded(i, column) is not None]

    def masks(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Class-distinct share of each pixel: (B, 1, H, W), float32 in [0, 1]."""
        return self._stack(indices, "mask").to(torch.float32) / 255

    def neutral(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Images without their class-distinct content: (B, C, H, W), float32 in [-1, 1]."""
        return to_unit_range(self._stack(indices, "neutral"))

    def pixels_of(self, indices: Sequence[int], column: str = "image") -> np.ndarray:
        # Visiting them in disk order reads each row group once, however small the cache.
        pixels = {i: self._decode(i, column) for i in sorted(set(indices))}
        return np.stack([pixels[i] for i in indices])

    def _stack(self, indices: Sequence[int] | np.ndarray, column: str) -> Tensor:
        return channels_first(self.pixels_of([int(i) for i in indices], column))

    def _decode(self, i: int, column: str) -> np.ndarray:
        data = self.encoded(i, column)
        if data is None:
            raise DataError(f"{self.folder}: image {self.ids[i]!r} has no {column}")
        try:
            image = images.decode(data)
        except DataError as error:
            raise DataError(f"{self.folder}: image {self.ids[i]!r}: {error}") from error
        size = (self.image_size, self.image_size)
        if image.shape != (
            size if self.channels == 1 or column == "mask" else (*size, self.channels)
        ):
            raise DataError(f"{self.folder}: image {self.ids[i]!r} has shape {image.shape}")
        return image

    def _row_group(self, block: int) -> pa.Table:
        """Encoded images of one row group, through the cache."""
        if block in self._cache:
            self._cache.move_to_end(block)
            return self._cache[block]
        shard, within = self._row_groups[block]
        with self._parquet(self._shards[shard]) as file:
            table = file.read_row_group(within, ["image", "mask", "neutral"], use_threads=False)
        if len(table) != self.blocks[block + 1] - self.blocks[block]:
            raise DataError(f"{self.folder}: {self._shards[shard]} is not what its index says")
        self._cache[block] = table
        self._cached += table.nbytes
        while self._cached > self.cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return table

    @contextlib.contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        """Open a shard or an index; add its name to pyarrow's errors."""
        path = self.folder.path(name)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: damaged shard ({error}); {self.folder.remedy}") from error


def _read_manifest(folder: Folder, split: str) -> dict[str, Any]:
    path = f"{folder}/{MANIFEST}"
    try:
        manifest = folder.read_json(MANIFEST)
        for key in ("class_names", "channels", "image_size"):
            manifest[key]
        names = [*manifest["shards"][split], index_name(split)]
        listed = all(name in manifest["files"] and name in manifest["bytes"] for name in names)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the stage prepare first") from None
    except StorageError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the manifest of a prepared dataset ({error!r})") from error
    if not listed:
        raise DataError(
            f"{path} is not the manifest of a prepared dataset (files are missing in it)"
        )
    missing = folder.missing(names, manifest["files"])
    if missing:
        raise DataError(f"{folder}: missing {', '.join(missing)}; {folder.remedy}")
    return manifest
