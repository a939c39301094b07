"""The images that a step sees, and reading them ahead."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from dxai.datasets.base import DataError
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.training.batch_order import Order, prefetch
from tests.listings import write_noise

BLOCKS = np.array([0, 100, 200, 230, 330, 400])


@pytest.mark.parametrize("blocks", [None, BLOCKS])
@pytest.mark.parametrize("window", [1, 2, 9])
def test_a_pass_visits_every_image_once(blocks: np.ndarray | None, window: int) -> None:
    order = Order(3, 400, 8, blocks, window)
    seen = np.concatenate([order.indices(step) for step in range(100)])
    for start in (0, 400):
        assert sorted(seen[start : start + 400]) == list(range(400))
    assert (seen[:400] != seen[400:]).any()


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_window_of_row_groups_is_all_that_is_needed_at_once(window: int) -> None:
    """Every row group that a window begins is finished within it."""
    order = Order(0, 400, 1, BLOCKS, window)
    seen = np.concatenate([order.indices(step) for step in range(400)])
    groups = np.searchsorted(BLOCKS, seen, side="right") - 1
    left = dict(enumerate(np.diff(BLOCKS).tolist()))
    begun: set[int] = set()
    sizes = []
    for group in groups.tolist():
        begun.add(group)
        left[group] -= 1
        if not any(left[g] for g in begun):
            sizes.append(len(begun))
            begun.clear()
    assert sizes == [window] * (5 // window) + ([5 % window] if 5 % window else [])


def test_images_of_a_window_are_mixed() -> None:
    order = Order(0, 400, 1, BLOCKS, 5)
    first = np.concatenate([order.indices(step) for step in range(100)])
    counts = np.bincount(np.searchsorted(BLOCKS, first, side="right") - 1, minlength=5)
    assert (counts > 0).all()


def test_the_order_needs_no_memory_of_earlier_steps() -> None:
    long = Order(7, 400, 8, BLOCKS, 2)
    wanted = [long.indices(step).tolist() for step in range(120)]
    fresh = Order(7, 400, 8, BLOCKS, 2)
    assert [fresh.indices(step).tolist() for step in range(90, 120)] == wanted[90:]


@pytest.fixture
def data(tmp_path: Path) -> ShardedDataset:
    counts = {"test": 2, "validation": 2, "train": 450}
    return ShardedDataset(write_noise(tmp_path, counts, shard_bytes=40_000), "train")


def test_what_fits_into_memory_is_shuffled_as_one(data: ShardedDataset) -> None:
    assert Order.over(data, 0, 8).blocks is None
    small = ShardedDataset(data.folder.root, "train", cache_bytes=60_000)
    order = Order.over(small, 0, 8)
    assert order.blocks is small.blocks
    sizes = [p.stat().st_size for p in small.folder.root.glob("train-0*.parquet")]
    assert order.window == max(1, int(30_000 / (sum(sizes) / (len(small.blocks) - 1))))


def test_streaming_reads_each_row_group_about_once(data: ShardedDataset) -> None:
    """The cache holds a quarter of the images; a full shuffle would read a group per batch."""
    small = ShardedDataset(data.folder.root, "train", cache_bytes=60_000)
    read: list[int] = []
    original = small._row_group

    def counted(row_group: int) -> object:
        if row_group not in small._cache:
            read.append(row_group)
        return original(row_group)

    small._row_group = counted  # type: ignore[assignment, method-assign]
    order = Order.over(small, 0, 10)
    seen = [i for batch in prefetch(small, order, range(45)) for i in batch.index.tolist()]
    assert sorted(seen) == list(range(450))
    assert len(read) <= 2 * (len(small.blocks) - 1)


def test_batches_ahead_are_those_of_the_order(data: ShardedDataset) -> None:
    order = Order.over(data, 1, 8)
    found = list(prefetch(data, order, range(3, 20)))
    assert [batch.index.tolist() for batch in found] == [
        order.indices(step).tolist() for step in range(3, 20)
    ]
    np.testing.assert_array_equal(found[2].images, data.batch(order.indices(5)).images)


def test_what_goes_wrong_is_raised_when_it_is_due(data: ShardedDataset) -> None:
    order = Order.over(data, 1, 1)
    group = int(np.searchsorted(data.blocks, order.indices(0)[0], side="right")) - 1
    kept = data._shards[data._row_groups[group][0]]
    for path in data.folder.root.glob("train-0*.parquet"):
        if path.name != kept:
            path.write_bytes(path.read_bytes()[:100])
    batches = prefetch(data, order, range(50))
    next(batches)
    with pytest.raises(DataError, match="damaged shard"):
        for _ in batches:
            pass


def test_the_thread_ends_with_the_generator(data: ShardedDataset) -> None:
    batches = prefetch(data, Order.over(data, 1, 8), range(50))
    next(batches)
    assert any(thread.name.startswith("reader") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("reader") for thread in threading.enumerate())
