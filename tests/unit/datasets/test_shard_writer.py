from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock

from dxai.datasets.base import SPLITS, DataError, Dropped, File, Listing, Load, Sample, Unit
from dxai.datasets.shard_writer import DUPLICATE, TWO_CLASSES, write_dataset
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.datasets.source import LocalSource
from dxai.datasets.splits import by_split
from tests.listings import no_files, noise_listing, read_noise, target_of, write_noise

ROOT = Path(__file__).parents[3]
FORK = multiprocessing.get_context("fork")
"""Processes that have imported everything already."""
COUNTS = {"test": 3, "validation": 2, "train": 5}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_noise(tmp_path / name, COUNTS | {"train": 250}, shard_bytes=20_000)
    assert content(tmp_path / "one/noise") == content(tmp_path / "two/noise")


def test_the_number_of_processes_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dxai.datasets.parallel_reader.SERIAL_BYTES", 0)
    monkeypatch.setattr("dxai.datasets.parallel_reader.BATCH_UNITS", 5)
    listing = noise_listing(COUNTS | {"train": 250})
    for workers in (1, 2, 3):
        target = target_of(tmp_path / str(workers), shard_bytes=20_000)
        write_dataset(target, listing, None, workers)
    assert content(tmp_path / "1/noise") == content(tmp_path / "2/noise")
    assert content(tmp_path / "1/noise") == content(tmp_path / "3/noise")


def test_manifest(tmp_path: Path) -> None:
    target = target_of(tmp_path)
    manifest = write_dataset(target, noise_listing(COUNTS), None)
    assert manifest["counts"] == {
        "train": {"a": 3, "b": 2},
        "validation": {"a": 1, "b": 1},
        "test": {"a": 2, "b": 1},
    }
    assert manifest["class_names"] == ["a", "b"]
    assert manifest["options"] == {"seed": 0}
    assert manifest.items() >= target.about.items()
    assert json.loads((target.out / "manifest.json").read_text()) == manifest
    assert {path.name for path in target.out.iterdir()} == {
        "manifest.json",
        "card.html",
        *manifest["files"],
    }
    assert not (tmp_path / "work/noise").exists()


@pytest.mark.parametrize("shard_bytes", [1, 10_000, 25_000, 10_000_000])
def test_shards_are_closed_at_their_size(tmp_path: Path, shard_bytes: int) -> None:
    folder = write_noise(tmp_path, COUNTS | {"train": 250}, shard_bytes=shard_bytes)
    tables = [pa.parquet.read_table(path) for path in sorted(folder.glob("train-0*.parquet"))]
    sizes = [
        sum(len(row[name] or b"") for row in table.to_pylist() for name in ("image", "mask"))
        for table in tables
    ]
    largest = max(len(d) for t in tables for d in t["image"].to_pylist())
    assert all(shard_bytes <= size < shard_bytes + 2 * largest for size in sizes[:-1])
    assert sum(map(len, tables)) == 250
    ids = ShardedDataset(folder, "train").ids
    assert [int(name.rpartition("/")[2]) for name in ids] == list(range(250))


# ------------------------------------------------------------------------------------ failures
def read_then(
    unit: Unit, load: Load, key: str, error: type[BaseException], size: int = 8
) -> Iterator[Sample | Dropped]:
    """Yield the images of a unit, but raise an error at one unit."""
    if unit.key == key:
        raise error(f"{key}: unreadable image")
    yield from read_noise(unit, load, size, 3)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("error", [DataError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_folder_as_it_was(
    tmp_path: Path, error: type[BaseException], old: bool
) -> None:
    target = target_of(tmp_path)
    if old:
        write_dataset(target, noise_listing(COUNTS), None)
    before = content(target.out) if old else None
    listing = noise_listing(COUNTS | {"train": 400})
    reader = functools.partial(read_then, key="train/00399", error=error)
    with pytest.raises(error, match="train/00399"):
        write_dataset(target, replace(listing, read=reader), None)
    assert (content(target.out) if target.out.exists() else None) == before


def twin_ids(unit: Unit, load: Load) -> Iterator[Sample]:
    for sample in read_noise(unit, load, 8, 3):
        yield replace(sample, id=f"{unit.key}/same")


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    listing = noise_listing(COUNTS)
    with pytest.raises(
        DataError, match=r"test/00000: a second image with the id 'test/00000/same'"
    ):
        write_dataset(target_of(tmp_path), replace(listing, read=twin_ids), None)
    doubled = replace(listing, units=[*listing.units, listing.units[0]])
    with pytest.raises(DataError, match="test/00000: a second file of this name"):
        write_dataset(target_of(tmp_path), doubled, None)


@pytest.mark.parametrize("split", COUNTS)
def test_a_class_without_images_is_named(tmp_path: Path, split: str) -> None:
    with pytest.raises(DataError, match=f"class 'b' has no images in split {split}"):
        write_noise(tmp_path, COUNTS | {split: 1})
    assert not (tmp_path / "noise").exists()


def drop_b(unit: Unit, load: Load) -> Iterator[Sample | Dropped]:
    for sample in read_noise(unit, load, 8, 3):
        yield sample if sample.label == "a" else Dropped("too dark", 1, sample.split, "b")


def test_what_left_a_split_without_a_class_is_told(tmp_path: Path) -> None:
    listing = replace(noise_listing(COUNTS), read=drop_b)
    message = "class 'b' has no images in split train; left out there: 2 \\(too dark\\)$"
    with pytest.raises(DataError, match=message):
        write_dataset(target_of(tmp_path), listing, None)


def test_another_process_at_the_same_work_is_named(tmp_path: Path) -> None:
    busy = pytest.raises(DataError, match="another process is preparing this dataset")
    (tmp_path / "work/noise").mkdir(parents=True)
    with FileLock(tmp_path / "work/noise/lock"), busy:
        write_noise(tmp_path, COUNTS)
    write_noise(tmp_path, COUNTS)


# ------------------------------------------------------------------------------------ resuming
LONG = COUNTS | {"train": 600}


def read_until(unit: Unit, load: Load, log: str, last: int) -> Iterator[Sample]:
    """Log a unit and yield its images; unit number `last` kills the program."""
    number = int(unit.key.rpartition("/")[2])
    if unit.split == "train" and number >= last:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(log, "a") as file:
        print(unit.key, file=file)
    yield from read_noise(unit, load, 8, 3)


def write_until(folder: Path, last: int) -> None:
    read = functools.partial(read_until, log=str(folder / "log"), last=last)
    listing = replace(noise_listing(LONG), read=read)
    write_dataset(target_of(folder, shard_bytes=20_000), listing, None)


@pytest.mark.parametrize(
    "last",
    [
        [300],
        *(pytest.param(n, marks=pytest.mark.slow) for n in ([0], [30], [300, 300, 450], [597])),
    ],
)
def test_a_killed_run_goes_on_without_loss(tmp_path: Path, last: list[int]) -> None:
    """The result is that of an undisturbed run, byte for byte, wherever it was killed."""
    whole = write_noise(tmp_path / "whole", LONG, shard_bytes=20_000)
    folder = tmp_path / "killed"
    folder.mkdir()
    for killed_at in last:
        process = FORK.Process(target=write_until, args=(folder, killed_at))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    work = folder / "work/noise/x/data"
    finished = {p.name: p.stat().st_mtime_ns for p in work.glob("*-0*.parquet")}
    read_before = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    (folder / "log").write_text("")
    listing = noise_listing(LONG)
    reader = functools.partial(read_until, log=str(folder / "log"), last=10_000)
    target = target_of(folder, shard_bytes=20_000)
    write_dataset(target, replace(listing, read=reader), None)
    assert content(target.out) == content(whole)
    assert {name: (target.out / name).stat().st_mtime_ns for name in finished} == finished
    again = (folder / "log").read_text().splitlines()
    rows = sum(len(pa.parquet.read_table(target.out / name)) for name in finished)
    # What lies in finished shards is not read again, but for the unit on the edge of the last.
    assert len(again) <= len(listing.units) - rows // 3 + 1
    assert set(read_before) | set(again) == {unit.key for unit in listing.units}


def test_a_torn_line_of_the_journal_is_read_again(tmp_path: Path) -> None:
    whole = write_noise(tmp_path / "whole", LONG, shard_bytes=20_000)
    target = target_of(tmp_path, shard_bytes=20_000)
    listing = noise_listing(LONG)
    reader = functools.partial(read_then, key="train/00450", error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(target, replace(listing, read=reader), None)
    journal = target.work / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    write_dataset(target, listing, None)
    assert content(target.out) == content(whole)


def test_unfinished_work_of_other_settings_is_removed(tmp_path: Path) -> None:
    reader = functools.partial(read_then, key="train/00003", error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(target_of(tmp_path), replace(noise_listing(COUNTS), read=reader), None)
    other = replace(target_of(tmp_path), work=tmp_path / "work/noise/y")
    with pytest.raises(KeyboardInterrupt):
        write_dataset(other, replace(noise_listing(COUNTS), read=reader), None)
    assert [p.name for p in (tmp_path / "work/noise").iterdir() if p.is_dir()] == ["y"]


@pytest.mark.slow
def test_readers_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = """
        import sys, time, functools
        from dataclasses import replace
        from pathlib import Path
        import dxai.datasets.parallel_reader as work
        from dxai.datasets.shard_writer import write_dataset
        from tests.listings import noise_listing, target_of
        work.SERIAL_BYTES = 0
        if __name__ == "__main__":
            listing = noise_listing({"test": 2, "validation": 2, "train": 10**6})
            write_dataset(target_of(Path(sys.argv[1])), listing, None, 2)
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )

    def family() -> int:
        listed = subprocess.run(
            ["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True
        )
        return len(listed.stdout.split())

    deadline = time.monotonic() + 60
    while family() < 4 and time.monotonic() < deadline:  # itself, fork server, two readers
        time.sleep(0.1)
    assert family() >= 4
    time.sleep(1)
    process.kill()
    process.wait()
    while family() and time.monotonic() < deadline + 30:
        time.sleep(0.1)
    assert family() == 0


def kill_itself(unit: Unit, load: Load) -> Iterator[Sample]:
    if unit.key == "train/00300":
        os.kill(os.getpid(), signal.SIGKILL)
    yield from read_noise(unit, load, 8, 3)


def test_a_file_that_kills_its_reader_is_narrowed_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dxai.datasets.parallel_reader.SERIAL_BYTES", 0)
    monkeypatch.setattr("dxai.datasets.parallel_reader.BATCH_UNITS", 3)
    listing = replace(noise_listing(LONG), read=kill_itself)
    with pytest.raises(
        DataError, match=r"was killed .* at train/00\d+ or one of \d+ files"
    ) as error:
        write_dataset(target_of(tmp_path), listing, None, 2)
    first, after = map(int, re.findall(r"train/(\d+) or one of (\d+)", str(error.value))[0])
    assert first <= 300 <= first + 3 * after
    assert after < 2 * 2 * 3 + 3


# ------------------------------------------------------------------------------------ duplicates
def read_listed(unit: Unit, load: Load) -> Iterator[Sample]:
    load(unit.files[0])
    yield from read_noise(replace(unit, about=(range(2),)), load, 8, 3)


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Listing, LocalSource]:
    """Units of two images each; a file of test and one of train are the same, and two of train."""
    contents = {"test/0": b"a", "validation/0": b"b", "train/0": b"c", "train/1": b"a"}
    contents |= {"train/2": b"c"}
    for name, data in contents.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(data)
    source = LocalSource(tmp_path / "raw")
    files: dict[str, File] = {file.name: file for file in source.files()}
    units = [Unit(name, name.split("/")[0], (files[name],)) for name in contents]
    return Listing(("a", "b"), units, read_listed), source


def test_duplicates_are_reported(tmp_path: Path, twins: tuple[Listing, LocalSource]) -> None:
    manifest = write_dataset(target_of(tmp_path), *twins)
    assert manifest["duplicates"] == {
        "within": 1,
        "across": 1,
        "examples": [["test/0", "train/1"]],
        "classes": 0,
        "class_examples": [],
    }
    assert manifest["counts"]["train"] == {"a": 3, "b": 3}
    assert "test/0 = train/1" in (tmp_path / "noise/card.html").read_text()


def test_duplicates_across_splits_are_dropped(
    tmp_path: Path, twins: tuple[Listing, LocalSource]
) -> None:
    manifest = write_dataset(target_of(tmp_path, duplicates="drop"), *twins)
    assert manifest["counts"]["train"] == {"a": 2, "b": 2}
    assert manifest["counts"]["test"] == {"a": 1, "b": 1}
    assert manifest["dropped"] == [
        {"rule": DUPLICATE, "split": "train", "class": label, "images": 1, "first": "train/1"}
        for label in "ab"
    ]
    ids = ShardedDataset(tmp_path / "noise", "train").ids
    assert {name.rpartition("/")[0] for name in ids} == {"train/0", "train/2"}


def test_duplicates_across_splits_are_refused(
    tmp_path: Path, twins: tuple[Listing, LocalSource]
) -> None:
    message = r"train/1 \(train\) and test/0 \(test\) are the same file; .*drop or report"
    with pytest.raises(DataError, match=message):
        write_dataset(target_of(tmp_path, duplicates="refuse"), *twins)


def read_one(unit: Unit, load: Load) -> Iterator[Sample]:
    load(unit.files[0])
    yield Sample(np.zeros((8, 8, 3), np.uint8), unit.split, unit.label, unit.key, "", "")


@pytest.fixture
def labelled(tmp_path: Path) -> Callable[[str], tuple[Listing, LocalSource]]:
    """`labelled(elsewhere)`: a file of class a in train, and the same of class b elsewhere."""

    def make(elsewhere: str) -> tuple[Listing, LocalSource]:
        names = [f"{split}/{label}/0" for split in SPLITS for label in "ab"]
        names += [f"{split}/{label}/1" for split in SPLITS for label in "ab"]
        contents = {name: name for name in names} | {"train/a/0": "same", elsewhere: "same"}
        for name, text in contents.items():
            (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / name).write_text(text)
        source = LocalSource(tmp_path / "raw")
        units = [
            Unit(file.name, file.name.split("/")[0], (file,), file.name.split("/")[1])
            for file in source.files()
        ]
        return Listing(("a", "b"), by_split(units), read_one), source

    return make


@pytest.mark.parametrize("elsewhere", ["train/b/0", "test/b/1"])
def test_a_file_under_two_classes_is_seen(
    tmp_path: Path,
    labelled: Callable[[str], tuple[Listing, LocalSource]],
    elsewhere: str,
) -> None:
    """Within a split and across; equal files whose class is drawn say nothing."""
    listing, source = labelled(elsewhere)
    first, second = sorted(("train/a/0", elsewhere))
    manifest = write_dataset(target_of(tmp_path), listing, source)
    assert manifest["duplicates"]["classes"] == 1
    assert manifest["duplicates"]["class_examples"] == [[first, second]]
    assert f"{first} = {second}" in (tmp_path / "noise/card.html").read_text()

    manifest = write_dataset(target_of(tmp_path, duplicates="drop"), listing, source)
    (dropped,) = manifest["dropped"]
    assert dropped["first"] == second
    assert dropped["rule"] == (TWO_CLASSES if elsewhere.startswith("train") else DUPLICATE)

    classes = {name: name.split("/")[1] for name in (first, second)}
    message = rf"{second} \(\w+, class '{classes[second]}'\) and {first} \(\w+, class "
    with pytest.raises(DataError, match=message):
        write_dataset(target_of(tmp_path, duplicates="refuse"), listing, source)

    drawn = replace(listing, classes_drawn=True)
    assert write_dataset(target_of(tmp_path), drawn, source)["duplicates"]["classes"] == 0


def test_a_resumed_run_remembers_duplicates(
    tmp_path: Path, twins: tuple[Listing, LocalSource]
) -> None:
    listing, source = twins
    target = target_of(tmp_path, duplicates="drop", shard_bytes=1)
    reader = functools.partial(_stop_at, key="train/2")
    with pytest.raises(KeyboardInterrupt):
        write_dataset(target, replace(listing, read=reader), source)
    manifest = write_dataset(target, listing, source)
    assert manifest["counts"]["train"] == {"a": 2, "b": 2}
    assert manifest["duplicates"]["within"] == manifest["duplicates"]["across"] == 1
    assert manifest["duplicates"]["examples"] == [["test/0", "train/1"]]


def _stop_at(unit: Unit, load: Load, key: str) -> Iterator[Sample]:
    if unit.key == key:
        raise KeyboardInterrupt
    yield from read_listed(unit, load)


# ------------------------------------------------------------------------------------ counting
def read_and_drop(unit: Unit, load: Load) -> Iterator[Sample | Dropped]:
    yield Dropped("too dark", 2, unit.split, "a")
    yield Dropped("no class", 1, unit.split)
    yield from read_noise(unit, load, 8, 3)


def test_what_is_dropped_adds_up(tmp_path: Path) -> None:
    listing = replace(noise_listing(COUNTS), read=read_and_drop, dropped=(Dropped("no image", 4),))
    manifest = write_dataset(target_of(tmp_path), listing, None)
    found = {(row["rule"], row["split"]): row["images"] for row in manifest["dropped"]}
    units = {split: sum(unit.split == split for unit in listing.units) for split in COUNTS}
    assert found == {("no image", ""): 4} | {
        (rule, split): n * count
        for rule, n in (("too dark", 2), ("no class", 1))
        for split, count in units.items()
    }


@pytest.mark.slow
def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """2,000 images of 12 kB that compression cannot shrink: 24 MB go through a few."""
    listing = noise_listing({"test": 2, "validation": 2, "train": 2000}, size=64)
    peaks = [0]

    def watched(unit: Unit, load: Load) -> Iterator[Sample]:
        peaks.append(pa.total_allocated_bytes())
        yield from read_noise(unit, no_files, 64, 3)

    start = pa.total_allocated_bytes()
    target = target_of(tmp_path, size=64, shard_bytes=6_000_000)
    tracemalloc.start()
    write_dataset(target, replace(listing, read=watched), None, workers=1)
    peak_python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    written = sum(path.stat().st_size for path in target.out.iterdir())
    assert written > 20e6
    assert peak_python < 8e6
    assert max(peaks) - start < 6e6
