"""Measure preparing a dataset of the size of the paper's DOTA: memory, speed, resuming.

Run as `python -m benchmarks.preparing`; see benchmarks/README.md. Aerial images are made, read
through the real layout and deleted one by one, so that the disk holds the shards alone.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil
from PIL import Image

from dxai.config.schema import DatasetParams, PrepareParams
from dxai.datasets.base import DataError, File
from dxai.datasets.images import encode, open_image
from dxai.datasets.layouts import dota
from dxai.datasets.shard_writer import Target, write_dataset
from dxai.datasets.source import Source
from dxai.paths import index_name
from dxai.utils import keyed_random, processes
from dxai.utils.files import atomic

PATCH = 256
ACROSS = 8
"""Patches across an image."""
GROUNDS = 6
"""Number of different pictures; files made from the same one differ by a comment."""
FEW = 8 * ACROSS**2
"""Patches of a set so small that starting programs takes most of its time."""
SIZES = (5_000, 50_000, 193_161)
"""Patches; the last is the size of the paper's set (Table 5)."""


def main() -> None:
    """Print images per second, peak memory and the ratio to bare decoding and encoding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, nargs="+", default=SIZES)
    parser.add_argument("--folder", type=Path, help="working folder; default: a temporary one")
    parser.add_argument("--kill", action="store_true", help="kill each run half way, then resume")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help="0: one per core")
    args = parser.parse_args()
    if args.child:
        prepare(args.folder, GeneratedSource(args.folder / "raw", args.child), args.workers)
        return
    for patches in args.patches:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            print(json.dumps(measure(Path(folder), patches, args.kill, args.workers)), flush=True)


def measure(folder: Path, patches: int, kill: bool = False, workers: int = 0) -> dict[str, Any]:
    """Prepare `patches` patches in a separate process and measure it.

    Returns
    -------
    dict
        ``patches``, ``seconds``, ``start_seconds`` (the time of a set without images),
        ``images_per_second``, ``peak_mb`` (proportional memory of all processes together),
        ``disk_gb``, ``ratio`` (seconds a patch beside the same cores only decoding the same images
        and encoding the same patches), ``ratio_after_start``, ``ratio_of_work`` (see there),
        ``kept`` (shards that were finished when the run was killed), ``lost`` and ``doubled``
        patches.
    """
    bare = [bare_seconds(folder, min(patches, SIZES[0]), workers)]
    command = [sys.executable, "-m", "benchmarks.preparing", "--workers", str(workers), "--child"]
    (folder / "few").mkdir()
    bare_seconds(folder / "few", FEW, workers)  # generates its pictures
    began = time.monotonic()
    watch([*command, str(FEW), "--folder", str(folder / "few")])
    few = time.monotonic() - began
    command += [str(patches), "--folder", str(folder)]
    began, peak, kept = time.monotonic(), 0.0, {}
    if kill:
        peak = watch(command, until=lambda: _half_way(folder, patches))
        kept = _shards(folder)
    peak = max(peak, watch(command))
    seconds = time.monotonic() - began
    after = _finished(folder)
    if any(after.get(name) != state for name, state in kept.items()):
        raise SystemExit("a finished shard was written again")
    bare.append(bare_seconds(folder, min(patches, SIZES[0]), workers))
    ids = list(_ids(folder / "out"))
    per_patch = float(np.mean(bare))
    added = (seconds - few) / (patches - FEW)
    return {
        "patches": patches,
        "seconds": round(seconds, 1),
        "start_seconds": round(few - FEW * added, 1),
        "images_per_second": round(patches / seconds, 1),
        "peak_mb": round(peak / 2**20),
        "disk_gb": round(sum(f.stat().st_size for f in (folder / "out").iterdir()) / 1e9, 2),
        "shards": len(after),
        "ratio": round(seconds / patches / per_patch, 2),
        "ratio_after_start": round(added / per_patch, 2),
        "ratio_of_work": round(ratio_of_work(folder / "work of one process"), 2),
        "kept": len(kept),
        "lost": patches - len(set(ids)),
        "doubled": len(ids) - len(set(ids)),
    }


def ratio_of_work(folder: Path, patches: int = 16 * ACROSS**2, times: int = 5) -> float:
    """Return the processor time of preparing relative to only decoding and encoding.

    Both are done with one image after the other in this process, so that neither the start of
    programs nor what else runs on the machine counts; the result is the median over `times` sets.
    """
    found = []
    for _ in range(1 + times):  # the first generates the pictures and imports what is missing
        source = Compared(folder / "raw", patches)
        prepare(folder, source, workers=1)
        found.append(source.ratio())
        shutil.rmtree(folder / "out")
    return float(np.median(found[1:]))


def prepare(folder: Path, source: GeneratedSource, workers: int) -> None:
    """Run the stage on generated images."""
    options = {"patch": PATCH, "stride": PATCH}
    dataset = DatasetParams(
        layout="dota", source="generated", channels=3, options=options, encoding="jpeg"
    )
    listing = dota.find(source, dataset, PrepareParams(image_size=PATCH))
    about = {"name": "dota", "layout": "dota", "drawn": True, "channels": 3, "image_size": PATCH}
    target = Target(folder / "out", folder / "work/dota/x", about | {"encoding": "jpeg"})
    write_dataset(target, listing, source, workers)


class GeneratedSource(Source):
    """A DOTA release whose images exist only while they are read.

    Parameters
    ----------
    folder : Path
        Folder where each image is written, read and deleted.
    patches : int
        Number of patches of all images together; every patch has a class.
    """

    def __init__(self, folder: Path, patches: int) -> None:
        self.folder, self.name, self.table, self.empty = folder, "generated", None, []
        whole, rest = divmod(patches, ACROSS**2)
        self.shapes = [(ACROSS, ACROSS)] * whole
        if rest:  # the last image holds the remaining patches
            down = next(n for n in range(ACROSS, 0, -1) if rest % n == 0)
            self.shapes.append((rest // down, down))
        folder.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[File]:
        names = [f"P{i:05d}" for i in range(len(self.shapes))]
        images = [File(f"images/{name}.png", 1 << 22, "") for name in names]
        return images + [File(f"labelTxt/{name}.txt", 100, "") for name in names]

    def load(self, file: File) -> bytes:
        number = int(Path(file.name).stem[1:])
        if file.name.startswith("labelTxt"):
            return self.labels(number).encode()
        path = self.folder / f"{os.getpid()}.png"
        try:
            png = ground(self.folder, number % GROUNDS, *self.shapes[number])
            path.write_bytes(commented(png, number))
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error}") from error
        finally:
            path.unlink(missing_ok=True)

    def labels(self, number: int) -> str:
        """Put a car in the middle of every second patch."""
        wide, high = self.shapes[number]
        lines = ["imagesource:generated", "gsd:0.1"]
        for i in range(0, wide * high, 2):
            x, y = i % wide * PATCH + 100, i // wide * PATCH + 100
            lines.append(f"{x} {y} {x + 60} {y} {x + 60} {y + 30} {x} {y + 30} small-vehicle 0")
        return "\n".join(lines)


class Compared(GeneratedSource):
    """A release each of whose images is also only decoded and encoded, before it is read."""

    def __init__(self, folder: Path, patches: int) -> None:
        super().__init__(folder, patches)
        self.plain = GeneratedSource(folder, patches)
        self.bare: list[float] = []
        """Processor seconds of decoding and encoding each image."""
        self.clock: list[float] = []
        """Processor seconds of all other work until then."""

    def load(self, file: File) -> bytes:
        if file.name.startswith("images"):
            self.clock.append(time.process_time() - sum(self.bare))
            self.bare.append(_decode_and_encode(self.plain, file))
        return super().load(file)

    def ratio(self) -> float:
        """Return what an image costs until the next is read, relative to decoding and encoding."""
        return (self.clock[-1] - self.clock[0]) / sum(self.bare[:-1])


def ground(folder: Path, number: int, wide: int, high: int) -> bytes:
    """Return a PNG of smooth ground with some grain, generated once and kept in the folder."""
    path = folder / f"ground-{number}-{wide}-{high}.png"
    if not path.exists():
        rng = keyed_random.generator(number, "ground")
        coarse = rng.uniform(60, 190, (4 * high, 4 * wide, 3)).astype(np.uint8)
        size = (wide * PATCH, high * PATCH)
        picture = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        grain = rng.normal(0, 3, picture.shape[:2])[..., None]
        pixels = (picture + grain).round().clip(0, 255).astype(np.uint8)
        with atomic(path) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG", compress_level=1)
    return path.read_bytes()


def commented(png: bytes, number: int) -> bytes:
    """Make another file of the same picture by adding a comment before its end."""
    text = b"tEXtComment\0" + str(number).encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return png[:-12] + chunk + png[-12:]


def bare_seconds(folder: Path, patches: int, workers: int) -> float:
    """Return the seconds per patch of only decoding and encoding."""
    source = GeneratedSource(folder / "raw", patches)
    images = [file for file in source.files() if file.name.startswith("images")]
    for file in (*images[:GROUNDS], images[-1]):
        source.load(file)  # generates missing pictures
    context = multiprocessing.get_context("forkserver")
    with context.Pool(workers or len(os.sched_getaffinity(0))) as pool:
        job = functools.partial(_decode_and_encode, source)
        pool.map(job, images[:4])  # start the processes before the clock
        began = time.monotonic()
        pool.map(job, images, chunksize=1)
        return (time.monotonic() - began) / patches


def _decode_and_encode(source: GeneratedSource, file: File) -> float:
    began = time.process_time()
    picture = open_image(source.load(file), file.name, 3)
    boxes = dota.patch_grid(*picture.size, PATCH, PATCH).tolist()
    for box in boxes:
        encode(np.asarray(picture.crop(box)), "jpeg")
    return time.process_time() - began


def watch(command: list[str], until: Any = lambda: False) -> float:
    """Run a command to its end, or kill -9 it and its children once `until` is true.

    Returns
    -------
    float
        Peak of the proportional memory of the command and all that it started, bytes.
    """
    process = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
    ended, peaks = Event(), [0.0, 0.0]

    def look() -> None:
        while not ended.wait(0.1):
            peaks.append(sum(map(_memory, processes.members(process.pid, os.getsid))))

    thread = Thread(target=look)
    thread.start()
    try:
        while process.poll() is None:
            if until():
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)
    finally:
        ended.set()
        thread.join()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"it failed with code {process.returncode}")
    # Processes share pages and are read one by one: use a value that two readings agree on.
    return max(map(min, itertools.pairwise(peaks)))


def _memory(pid: int) -> float:
    """Return a process's memory in bytes, shared pages divided by their users; 0 if it ended."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).memory_full_info().pss
    return 0.0


def _shards(folder: Path) -> dict[str, tuple[int, int]]:
    """Map the finished shards of an unfinished run to their inode and time."""
    return _states(folder / "work/dota/x/data")


def _finished(folder: Path) -> dict[str, tuple[int, int]]:
    return _states(folder / "out")


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.glob("*-[0-9]*.parquet")
    }


def _half_way(folder: Path, patches: int) -> bool:
    """Whether about half of the images have been read."""
    journal = folder / "work/dota/x/journal.jsonl"
    if not journal.exists() or not _shards(folder):
        return False
    return journal.read_bytes().count(b"\n") > patches / ACROSS**2 / 2


def _ids(folder: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    for split in ("train", "validation", "test"):
        yield from pq.read_table(folder / index_name(split), columns=["id"])["id"].to_pylist()


if __name__ == "__main__":
    main()
