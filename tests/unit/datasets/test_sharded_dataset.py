from __future__ import annotations

import functools
import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dxai.datasets.base import DataError, Sample
from dxai.datasets.images import decode
from dxai.datasets.sharded_dataset import ShardedDataset
from tests.listings import no_files, noise_listing, samples_of, write_noise

COUNTS = {"train": 250, "validation": 2, "test": 7}
SHARD = 30_000
"""Bytes of a shard: one row group of 100 images is more than that, as PNG of 8 px."""


@pytest.fixture(params=[1, 3], ids=["gray", "colour"])
def channels(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return a function that prepares the dataset with some channels, once."""

    @functools.cache
    def write(channels: int) -> Path:
        shard_bytes = SHARD if channels == 3 else SHARD // 2
        folder = tmp_path_factory.mktemp("written")
        return write_noise(folder, COUNTS, channels=channels, shard_bytes=shard_bytes)

    return write


@pytest.fixture
def prepared(written: Callable[[int], Path], tmp_path: Path, channels: int) -> Path:
    """Copy the dataset, for the test to damage."""
    return shutil.copytree(written(channels), tmp_path / "noise")


@functools.cache
def train_samples(channels: int) -> list[Sample]:
    listing = noise_listing(COUNTS, channels=channels)
    return [sample for sample in samples_of(listing, no_files) if sample.split == "train"]


@pytest.fixture
def originals(channels: int) -> list[Sample]:
    return train_samples(channels)


def test_columns_that_are_kept(prepared: Path, originals: list[Sample]) -> None:
    dataset = ShardedDataset(prepared, "train")
    assert len(dataset) == 250
    assert dataset.class_names == ["a", "b"]
    assert dataset.ids == [sample.id for sample in originals]
    assert dataset.groups == [sample.group for sample in originals]
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == ["ab".index(sample.label) for sample in originals]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_batch_holds_the_images_asked_for(
    prepared: Path, originals: list[Sample], channels: int, cache_bytes: int
) -> None:
    dataset = ShardedDataset(prepared, "train", cache_bytes)
    assert (dataset.channels, dataset.image_size) == (channels, 8)
    indices = [249, 0, 119, 120, 99, 100, 0]  # across shards and row groups, one of them twice
    batch = dataset.batch(indices)
    wanted = np.stack([originals[i].image.reshape(8, 8, channels) for i in indices])
    wanted = wanted.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    assert batch.images.dtype == torch.float32
    np.testing.assert_array_equal(batch.images, wanted)
    assert batch.index.tolist() == indices
    assert batch.ids == [originals[i].id for i in indices]
    assert batch.groups == [originals[i].group for i in indices]
    assert batch.labels.tolist() == [i % 2 for i in indices]


def test_the_range_is_from_minus_one_to_one(prepared: Path) -> None:
    images = ShardedDataset(prepared, "train").batch(range(250)).images
    assert images.min() == -1
    assert images.max() == 1


def test_batches_cover_the_split_once(prepared: Path) -> None:
    dataset = ShardedDataset(prepared, "train")
    sizes = [len(batch.index) for batch in dataset.batches(64)]
    assert sizes == [64, 64, 64, 58]
    assert torch.cat([batch.index for batch in dataset.batches(64)]).tolist() == list(range(250))
    chosen = np.array([5, 3, 200])
    assert [batch.index.tolist() for batch in dataset.batches(2, chosen)] == [[5, 3], [200]]


def test_encoded(prepared: Path, originals: list[Sample]) -> None:
    dataset = ShardedDataset(prepared, "train")
    data = dataset.encoded(130)
    assert data is not None
    np.testing.assert_array_equal(decode(data), originals[130].image)


def test_masks_where_they_are_known(prepared: Path, originals: list[Sample]) -> None:
    dataset = ShardedDataset(prepared, "train")
    known = [i for i, sample in enumerate(originals) if sample.mask is not None]
    assert dataset.having("mask") == known
    assert dataset.having("neutral") == []
    masks = dataset.masks(known[:5])
    assert masks.shape == (5, 1, 8, 8)
    wanted = np.stack([originals[i].mask for i in known[:5]])  # type: ignore[misc]
    np.testing.assert_allclose(masks[:, 0], wanted / 255, rtol=1e-6)
    with pytest.raises(DataError, match=r"image 'train/00000/0' has no mask"):
        dataset.masks([0])


@pytest.mark.parametrize("i", [-1, 250])
def test_image_that_is_not_there(prepared: Path, i: int) -> None:
    with pytest.raises(IndexError, match=f"image {i} of 250"):
        ShardedDataset(prepared, "train").batch([i])


def test_shards_are_ordinary_parquet(prepared: Path, originals: list[Sample]) -> None:
    first = len(pd.read_parquet(prepared / "train-00000.parquet"))
    frame = pd.read_parquet(prepared / "train-00001.parquet")
    columns = ["id", "label", "group", "source", "image", "mask", "neutral"]
    assert list(frame.columns) == columns
    here = originals[first : first + len(frame)]
    assert frame["id"].tolist() == [sample.id for sample in here]
    assert frame["source"].tolist() == [sample.source for sample in here]
    np.testing.assert_array_equal(decode(frame["image"][3]), here[3].image)
    index = pd.read_parquet(prepared / "train-index.parquet")
    assert index["id"].tolist() == [sample.id for sample in originals]
    assert (index["shard"] == 1).sum() == len(frame)


def test_manifest_names_hashes_and_nothing_of_this_machine(prepared: Path) -> None:
    text = (prepared / "manifest.json").read_text()
    assert str(prepared.parent) not in text
    for name, sha256 in json.loads(text)["files"].items():
        assert hashlib.sha256((prepared / name).read_bytes()).hexdigest() == sha256


def test_cache_is_bounded(tmp_path: Path) -> None:
    """20 row groups of about 40 kB each; a cache of 0 bytes still holds the one in use."""
    counts = {"train": 2000, "test": 2, "validation": 2}
    folder = write_noise(tmp_path, counts, shard_bytes=200_000)
    before = pa.total_allocated_bytes()
    for cache_bytes in (0, 30_000):
        dataset = ShardedDataset(folder, "train", cache_bytes)
        assert not dataset.resident
        for batch in dataset.batches(50):
            del batch
            assert pa.total_allocated_bytes() - before < cache_bytes + 90_000
        del dataset
    unbounded = ShardedDataset(folder, "train")
    assert unbounded.resident
    for batch in unbounded.batches(50):
        del batch
    assert pa.total_allocated_bytes() - before > 500_000


def test_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    """There is room for two of three row groups, which outlive the file."""
    folder = write_noise(tmp_path, {"train": 300, "test": 2, "validation": 2})
    table = pq.read_table(folder / "train-00000.parquet", columns=["image", "mask", "neutral"])
    dataset = ShardedDataset(folder, "train", cache_bytes=int(2.5 / 3 * table.nbytes))
    for i in (0, 100, 0, 200):
        dataset.batch([i])
    (folder / "train-00000.parquet").unlink()
    dataset.batch([50, 250])
    with pytest.raises(DataError, match=r"train-00000\.parquet"):
        dataset.batch([150])


def test_blocks_are_the_row_groups(tmp_path: Path) -> None:
    counts = {"train": 250, "test": 2, "validation": 2}
    dataset = ShardedDataset(write_noise(tmp_path, counts, shard_bytes=SHARD), "train")
    files = [pq.ParquetFile(path) for path in sorted(dataset.folder.root.glob("train-0*.parquet"))]
    sizes = [f.metadata.row_group(g).num_rows for f in files for g in range(f.num_row_groups)]
    assert dataset.blocks.tolist() == [0, *np.cumsum(sizes)]


def test_can_be_sent_to_another_process(prepared: Path) -> None:
    dataset = ShardedDataset(prepared, "test")
    dataset.batch([0])
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.batch([6]).images, dataset.batch([6]).images)


def test_unknown_split(prepared: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'val'; valid are train, validation, test"):
        ShardedDataset(prepared, "val")


def test_folder_that_was_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json: no such file; run the stage prepare"):
        ShardedDataset(tmp_path / "nothing", "train")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"text"'])
def test_damaged_manifest(prepared: Path, text: str) -> None:
    (prepared / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json is not the manifest"):
        ShardedDataset(prepared, "train")


def test_missing_shard_is_named(prepared: Path) -> None:
    (prepared / "train-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"missing train-00001\.parquet"):
        ShardedDataset(prepared, "train")


@pytest.mark.parametrize("name", ["train-00001.parquet", "train-index.parquet"])
def test_truncated_file_is_named(prepared: Path, name: str) -> None:
    path = prepared / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{name}: damaged shard"):
        ShardedDataset(prepared, "train").batch(range(250))


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["image", "id"])
def test_flipped_bit_is_found_when_it_is_read(prepared: Path, what: str) -> None:
    """No damaged image, and no damaged label, is ever used."""
    if what == "image":
        path = prepared / "train-00000.parquet"
        encoded = ShardedDataset(prepared, "train").encoded(1)
        assert encoded is not None
        position = path.read_bytes().index(encoded) + 50
    else:
        path = prepared / "train-index.parquet"
        position = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset + 60
    flip(path, position)
    with pytest.raises(DataError, match=f"{path.name}: damaged shard"):
        ShardedDataset(prepared, "train").batch([0, 1])


def test_image_that_is_none_is_named(prepared: Path) -> None:
    path = prepared / "train-00000.parquet"
    table = pq.read_table(path)
    images = [b"no image", *table["image"].to_pylist()[1:]]
    table = table.set_column(4, "image", pa.array(images, pa.binary()))
    pq.write_table(table, path, row_group_size=100)
    with pytest.raises(DataError, match=r"'train/00000/0': damaged image \(it is text"):
        ShardedDataset(prepared, "train").batch([0])


def test_shard_of_another_run_is_named(prepared: Path) -> None:
    path = prepared / "train-00000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 10), path)
    with pytest.raises(DataError, match=r"train-00000\.parquet is not what its index says"):
        ShardedDataset(prepared, "train").batch([0])


def test_manifest_without_the_files_is_none(prepared: Path) -> None:
    path = prepared / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))
    with pytest.raises(DataError, match="not the manifest of a prepared dataset"):
        ShardedDataset(prepared, "train")


def test_image_of_another_size_is_named(prepared: Path) -> None:
    path = prepared / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 16}))
    with pytest.raises(DataError, match=r"image 'train/00000/0' has shape \(8, 8"):
        ShardedDataset(prepared, "train").batch([0])
