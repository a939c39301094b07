"""Raw images in, sharded images out: layouts, the shards they are written to, and their reader."""

from __future__ import annotations

from dxai.datasets.base import SPLITS, DataError, Listing, Sample
from dxai.datasets.images import read_image
from dxai.datasets.registry import LAYOUTS, prepare
from dxai.datasets.shards import ShardedDataset

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "DataError",
    "Listing",
    "Sample",
    "ShardedDataset",
    "prepare",
    "read_image",
]
