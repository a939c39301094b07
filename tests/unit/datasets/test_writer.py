from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from dxai.datasets import DataError, Listing, Sample, ShardedDataset
from dxai.datasets.writer import write_dataset

Noise = Callable[..., Listing]
COUNTS = {"train": 5, "validation": 2, "test": 3}
ABOUT = {"name": "noise", "layout": "noise", "channels": 3, "image_size": 8}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_images_give_the_same_bytes(noise: Noise, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name, noise({"train": 250} | COUNTS), ABOUT, 100)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_counts_in_the_manifest(noise: Noise, tmp_path: Path) -> None:
    manifest = write_dataset(tmp_path / "out", noise(COUNTS), ABOUT, 100)
    assert manifest["counts"] == {
        "train": {"a": 3, "b": 2},
        "validation": {"a": 1, "b": 1},
        "test": {"a": 2, "b": 1},
    }
    assert manifest["class_names"] == ["a", "b"]
    assert manifest["options"] == {"seed": 0}
    assert manifest.items() >= ABOUT.items()


@pytest.mark.parametrize(
    ("shard_images", "shards"), [(1, 250), (99, 3), (100, 3), (125, 2), (250, 1), (251, 1)]
)
def test_images_in_a_shard(noise: Noise, tmp_path: Path, shard_images: int, shards: int) -> None:
    listing = noise({"train": 250, "validation": 1, "test": 1})
    manifest = write_dataset(tmp_path / "out", listing, ABOUT, shard_images)
    names = [f"train-{i:05d}.parquet" for i in range(shards)]
    assert list(manifest["files"]) == [*names, "validation-00000.parquet", "test-00000.parquet"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.json",
        *manifest["files"],
    }
    ids = ShardedDataset(tmp_path / "out", "train").ids
    assert ids == [f"train/{i}" for i in range(250)]


def broken(listing: Listing) -> Iterator[Sample]:
    yield from listing
    raise DataError("last.png: unreadable image")


def interrupted(listing: Listing) -> Iterator[Sample]:
    yield from listing
    raise KeyboardInterrupt


def doubled(listing: Listing) -> Iterator[Sample]:
    samples = list(listing)
    yield from samples
    yield replace(samples[0], source="twin.png")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (broken, DataError, r"last\.png"),
        (interrupted, KeyboardInterrupt, None),
        (doubled, DataError, r"twin\.png: a second image with the id 'train/0'"),
    ],
)
def test_failure_leaves_the_folder_as_it_was(
    noise: Noise,
    tmp_path: Path,
    spoil: Callable[[Listing], Iterator[Sample]],
    error: type[BaseException],
    message: str | None,
    old: bool,
) -> None:
    out = tmp_path / "out"
    if old:
        write_dataset(out, noise(COUNTS), ABOUT, 100)
    before = content(out) if old else None
    listing = noise(COUNTS | {"train": 400})
    with pytest.raises(error, match=message):
        write_dataset(out, replace(listing, samples=spoil(listing)), ABOUT, 100)
    assert (content(out) if out.exists() else None) == before
    assert list(tmp_path.iterdir()) == ([out] if old else [])


@pytest.mark.parametrize("split", COUNTS)
def test_empty_split_is_named(noise: Noise, tmp_path: Path, split: str) -> None:
    with pytest.raises(DataError, match=f"split {split} has no images"):
        write_dataset(tmp_path / "out", noise(COUNTS | {split: 0}), ABOUT, 100)
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_dataset(noise: Noise, tmp_path: Path) -> None:
    """2,000 images of 12 kB that compression cannot shrink: 24 MB go through a few."""
    listing = noise({"train": 2000, "validation": 1, "test": 1}, size=64)
    peak_arrow, samples = 0, iter(listing)

    def watched() -> Iterator[Sample]:
        nonlocal peak_arrow
        for sample in samples:
            peak_arrow = max(peak_arrow, pa.total_allocated_bytes())
            yield sample

    start = pa.total_allocated_bytes()
    tracemalloc.start()
    write_dataset(tmp_path / "out", replace(listing, samples=watched()), ABOUT, 500)
    peak_python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written > 20e6
    assert peak_python < 6e6
    assert peak_arrow - start < 6e6
