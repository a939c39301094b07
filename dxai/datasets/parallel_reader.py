"""Parallel reading of a listing's units, with results in the order of the units."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from dxai.datasets import images
from dxai.datasets.base import DataError, Dropped, File, Listing, Sample, Unit
from dxai.datasets.source import Source

BINS = 32
"""Bins of the intensity histograms, from 0 to 255."""
BATCH_BYTES = 4 << 20
BATCH_UNITS = 64
"""Limits of a batch of units handed to a process, since each hand-over takes time."""
SERIAL_BYTES = 16 << 20
"""Below this, reading takes less time than starting processes."""
ELSEWHERE_BYTES = 256 << 20
"""Below this, reading takes less time here than to start a cluster."""


@dataclass
class Reading:
    """Result of reading one unit.

    Attributes
    ----------
    rows : list of (str, dict)
        Split and encoded row of each sample.
    facts : dict
        For the data card, a resumed run and the search for duplicates, as JSON: ``unit``,
        ``split``, ``label`` (that of the unit), ``digest`` of the first file, ``rows`` (split ->
        class -> images), ``dropped`` ([rule, count, split, class]), ``sizes`` ("WxH" -> images)
        and ``intensity`` (class -> counts of pixel values in `BINS` bins; of large images every
        k-th pixel).
    """

    rows: list[tuple[str, dict[str, Any]]]
    facts: dict[str, Any]


class Reader:
    """Reader of a listing's units, which it does not hold, from their source.

    `encoding` applies to images; masks and neutral images are always PNG.
    """

    def __init__(self, listing: Listing, source: Source | None, encoding: str) -> None:
        self.read_unit, self.class_names = listing.read, listing.class_names
        self.source, self.encoding = source, encoding

    def read(self, unit: Unit) -> Reading:
        """Read and encode all samples of a unit; unusable files raise `DataError`."""
        digests: dict[str, str] = {}

        def load(file: File) -> bytes:
            assert self.source is not None
            data = self.source.load(file)
            digests[file.name] = hashlib.sha256(data).hexdigest()[:32]
            return data

        rows: list[tuple[str, dict[str, Any]]] = []
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        dropped: list[list[Any]] = []
        sizes: Counter[str] = Counter()
        intensity = {name: np.zeros(BINS, np.int64) for name in self.class_names}
        for found in self.read_unit(unit, load):
            if isinstance(found, Dropped):
                dropped.append([found.rule, found.count, found.split, found.label])
                continue
            rows.append((found.split, self._row(found)))
            counts[found.split][found.label] += 1
            width, height = found.size or found.image.shape[1::-1]
            sizes[f"{width}x{height}"] += 1
            intensity[found.label] += _histogram(found.image)
        ids = [row["id"] for _, row in rows]
        if len(set(ids)) < len(ids):
            (twin, _), *_ = Counter(ids).most_common()
            raise DataError(f"{unit.key}: a second image with the id {twin!r}")
        return Reading(
            rows,
            {
                "unit": unit.key,
                "split": unit.split,
                "label": unit.label,
                "digest": digests.get(unit.files[0].name, "") if unit.files else "",
                "rows": counts,
                "dropped": dropped,
                "sizes": sizes,
                "intensity": {k: v.tolist() for k, v in intensity.items() if v.any()},
            },
        )

    def _row(self, sample: Sample) -> dict[str, Any]:
        return {
            "id": sample.id,
            "label": self.class_names.index(sample.label),
            "group": sample.group,
            "source": sample.source,
            "image": images.encode(sample.image, self.encoding),
            # A mask is mostly flat: a higher level costs time and saves nothing.
            "mask": None if sample.mask is None else images.encode(sample.mask, level=1),
            "neutral": None if sample.neutral is None else images.encode(sample.neutral),
        }


class Readers(Executor):
    """Reads batches of units on other machines: `submit` is given a function and such a batch.

    Attributes
    ----------
    workers : int
        Batches that are read at once.

    A batch that is lost raises `BrokenProcessPool`, with the reason.
    """

    workers: int


Elsewhere = Callable[[Reader], Readers]


def read_all(
    reader: Reader,
    units: Sequence[Unit],
    workers: int = 0,
    elsewhere: Elsewhere | None = None,
) -> Generator[Reading, None, None]:
    """Read units in `workers` processes (0: one per core), in the order given.

    Only a few batches are in progress, so that memory does not grow with the number of units. With
    `elsewhere`, what takes longer than to start that is read there.

    Raises
    ------
    DataError
        For an unusable unit, or a process that was killed; the reason names its log, if any.
    """
    workers = workers or len(os.sched_getaffinity(0))
    size = sum(file.size for unit in units for file in unit.files)
    pool: Executor
    if elsewhere is not None and size >= ELSEWHERE_BYTES:
        pool = readers = elsewhere(reader)
        workers = readers.workers
    elif workers == 1 or size < SERIAL_BYTES:
        yield from map(reader.read, units)
        return
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        pool = ProcessPoolExecutor(workers, context, _start, (reader,))
    pending: deque[tuple[list[Unit], Future[list[Reading]]]] = deque()
    batches = _batches(units)
    try:
        for batch in itertools.islice(batches, 2 * workers):
            pending.append((batch, pool.submit(_read_batch, batch)))
        while pending:
            readings = pending[0][1].result()
            pending.popleft()
            for batch in itertools.islice(batches, 1):
                pending.append((batch, pool.submit(_read_batch, batch)))
            yield from readings
    except BrokenProcessPool as error:
        killed = "a process that read images was killed (out of memory?)"
        what = str(error) if isinstance(pool, Readers) else killed
        unread = [unit.key for batch, future in pending if _is_lost(future) for unit in batch]
        where = f" at {unread[0]} or one of {len(unread) - 1} files after it" if unread else ""
        raise DataError(f"{what}{where}; finished work is kept; run again to continue") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _is_lost(future: Future[list[Reading]]) -> bool:
    return not future.done() or future.exception() is not None


def _batches(units: Iterable[Unit]) -> Iterator[list[Unit]]:
    batch: list[Unit] = []
    size = 0
    for unit in units:
        batch.append(unit)
        size += sum(file.size for file in unit.files)
        if size >= BATCH_BYTES or len(batch) == BATCH_UNITS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _histogram(image: np.ndarray) -> np.ndarray:
    """Count the values of at most 64 x 64 pixels, evenly over the image."""
    every = max(1, image.shape[0] // 64)
    return np.bincount(image[::every, ::every].ravel() // (256 // BINS), minlength=BINS)


_reader: Reader


def _start(reader: Reader) -> None:
    """Initialise a reading process: its parent handles Ctrl-C, and it ends with its parent."""
    global _reader
    _reader = reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _read_batch(units: list[Unit]) -> list[Reading]:
    return [_reader.read(unit) for unit in units]
