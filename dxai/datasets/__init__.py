"""Raw images in, sharded images out: layouts, the shards they are written to, and their reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dxai.datasets.base import SPLITS, DataError, Layout, Listing, Sample, Unit
from dxai.datasets.images import read_image
from dxai.datasets.registry import LAYOUTS, prepare

if TYPE_CHECKING:
    from dxai.datasets.sharded_dataset import ShardedDataset

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "DataError",
    "Layout",
    "Listing",
    "Sample",
    "ShardedDataset",
    "Unit",
    "prepare",
    "read_image",
]


def __getattr__(name: str) -> Any:
    # The reader needs torch, whose seconds and bytes the processes that only write do without.
    if name == "ShardedDataset":
        from dxai.datasets.sharded_dataset import ShardedDataset

        return ShardedDataset
    raise AttributeError(f"module 'dxai.datasets' has no attribute {name!r}")
