"""Writer of a prepared dataset: readings of a listing into shards, resumable after a kill.

Work is done in a separate folder, which becomes the dataset's only when it is complete. It holds
the finished shards and a journal with a line for each unit read. The next run keeps every finished
shard and reads only the units whose images are not all in one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dxai.datasets import card
from dxai.datasets.base import SPLITS, DataError, Listing
from dxai.datasets.parallel_reader import Elsewhere, Reader, Reading, read_all
from dxai.datasets.shard_schema import COLUMNS, ROW_GROUP, SCHEMA
from dxai.datasets.source import Source
from dxai.datasets.statistics import Statistics
from dxai.paths import CARD, MANIFEST, index_name
from dxai.utils.files import locked, sha256, write_json
from dxai.utils.progress import Progress

JOURNAL = "journal.jsonl"
DUPLICATE = "the same file as one of another split"
TWO_CLASSES = "the same file as one of another class"


@dataclass(frozen=True)
class Target:
    """Content and destination of a prepared dataset.

    Attributes
    ----------
    out : Path
        The dataset's folder, which changes only after everything was read.
    work : Path
        Unfinished work of exactly these settings and this source.
    about : dict
        ``name``, ``layout``, ``channels``, ``image_size``, ``encoding``, for the manifest.
    shard_bytes : int
        A shard is closed at this size.
    duplicates : {'report', 'drop', 'refuse'}
        Handling of files that another split or class has too.
    origin, licence, paper
        For the data card.
    """

    out: Path
    work: Path
    about: dict[str, Any]
    shard_bytes: int = 128 << 20
    duplicates: str = "report"
    origin: str = ""
    licence: str = ""
    paper: tuple[int, int] | None = None


def write_dataset(
    target: Target,
    listing: Listing,
    source: Source | None,
    workers: int = 0,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Read every unit of a listing into shards, as `read_all` does: here or elsewhere.

    Returns
    -------
    dict
        The manifest: `target.about`, ``class_names``, ``options``, ``counts`` (split -> class ->
        images), ``dropped`` (rules and images left out), ``duplicates``, ``notes``, ``shards``
        (split -> names) and ``files`` (name -> SHA-256).

    Raises
    ------
    DataError
        For an unusable image, two units of the same name, a class without images in a split, a
        refused duplicate, a disk that cannot be written, or another process at this work.
    """
    twins = [key for key, n in Counter(unit.key for unit in listing.units).items() if n > 1]
    if twins:
        raise DataError(f"{twins[0]}: a second file of this name")
    try:
        with _alone(target.work):
            statistics = _write_shards(target, listing, source, workers, elsewhere)
            manifest = _finish(target, listing, statistics)
            shutil.rmtree(target.out, ignore_errors=True)
            target.out.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(target.work / "data", target.out)
        shutil.rmtree(target.work.parent, ignore_errors=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{target.out}: could not be written ({error})") from error
    return manifest


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Lock the work folder, and delete unfinished work of other settings."""
    with locked(work.parent / "lock") as file:
        if file is None:
            raise DataError("another process is preparing this dataset")
        for other in work.parent.iterdir():
            if other.is_dir() and other != work:
                shutil.rmtree(other)
        (work / "data").mkdir(parents=True, exist_ok=True)
        yield


class _SplitWriter:
    """Writer of one split's shards, which holds at most one row group of encoded images.

    Rows of shards that are already finished are skipped.
    """

    def __init__(self, folder: Path, split: str, shard_bytes: int) -> None:
        self.folder, self.split, self.shard_bytes = folder, split, shard_bytes
        self.names = [path.name for path in sorted(folder.glob(f"{split}-[0-9]*.parquet"))]
        self.finished = sum(pq.read_metadata(folder / name).num_rows for name in self.names)
        self.seen = 0
        self._rows: list[dict[str, Any]] = []
        self._file: pq.ParquetWriter | None = None
        self._bytes = 0

    def add(self, row: dict[str, Any]) -> bool:
        """Take the next row; return whether a shard is now full, to be closed."""
        self.seen += 1
        if self.seen <= self.finished:
            return False
        self._rows.append(row)
        self._bytes += sum(len(row[name] or b"") for name in ("image", "mask", "neutral"))
        if len(self._rows) == ROW_GROUP:
            self._flush()
        return self._bytes >= self.shard_bytes

    def close(self) -> None:
        """Finish the current shard, if any: it appears whole, and synced to disk."""
        if self._rows:
            self._flush()
        if self._file is None:
            return
        self._file.close()
        temporary = self._temporary()
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / self.names[-1])
        self._file, self._bytes = None, 0

    def abandon(self) -> None:
        """Drop the current shard; its error on a full disk would hide the original one."""
        if self._file is not None:
            with contextlib.suppress(pa.ArrowException, OSError):
                self._file.close()
            self._temporary().unlink(missing_ok=True)

    def _temporary(self) -> Path:
        return self.folder / f".{self.names[-1]}.tmp"

    def _flush(self) -> None:
        if self._file is None:
            self.names.append(f"{self.split}-{len(self.names):05d}.parquet")
            self._file = pq.ParquetWriter(
                self._temporary(),
                SCHEMA,
                compression={c: "zstd" if c in COLUMNS else "none" for c in SCHEMA.names},
                use_dictionary=["label", "group"],
                write_statistics=False,
                write_page_checksum=True,
            )
        columns = [pa.array([row[f.name] for row in self._rows], f.type) for f in SCHEMA]
        self._file.write_table(pa.table(columns, schema=SCHEMA))
        self._rows.clear()


def _write_shards(
    target: Target,
    listing: Listing,
    source: Source | None,
    workers: int,
    elsewhere: Elsewhere | None,
) -> Statistics:
    folder = target.work / "data"
    for left in folder.glob(".*.tmp"):
        left.unlink()
    writers = {split: _SplitWriter(folder, split, target.shard_bytes) for split in SPLITS}
    statistics = Statistics(listing)
    journal = target.work / JOURNAL
    done = _resume(journal, writers, statistics)
    title, total = f"prepare {target.about['name']}", len(listing.units)
    if done:
        print(f"{title}: continuing after {done} of {total} files", flush=True)
    progress = Progress(title, total, done, unit="files")
    left_over = Counter(unit.split for unit in listing.units[done:])
    reader = Reader(listing, source, target.about["encoding"])
    already = statistics.images
    with contextlib.ExitStack() as stack:
        for writer in writers.values():
            stack.callback(writer.abandon)
        lines = stack.enter_context(open(journal, "a"))
        readings = read_all(reader, listing.units[done:], workers, elsewhere)
        stack.callback(readings.close)
        for reading in readings:
            _judge(reading, statistics, target.duplicates)
            statistics.add(reading.facts)
            lines.write(json.dumps(reading.facts, ensure_ascii=False) + "\n")
            for split, row in reading.rows:
                if writers[split].add(row):
                    _sync(lines)
                    writers[split].close()
            done += 1
            left_over[reading.facts["split"]] -= 1
            if not left_over[reading.facts["split"]] and not left_over[""]:
                _sync(lines)
                for split in SPLITS if not reading.facts["split"] else [reading.facts["split"]]:
                    writers[split].close()
            seconds = max(progress.seconds, 1e-9)
            rate = (statistics.images - already) / seconds
            progress.update(done, f"{statistics.images} images, {rate:.0f} images/s")
        _sync(lines)
        for writer in writers.values():
            writer.close()
    statistics.shards = {split: writer.names for split, writer in writers.items()}
    return statistics


def _sync(lines: Any) -> None:
    """Put the journal on disk before a shard that relies on it."""
    lines.flush()
    os.fsync(lines.fileno())


def _resume(journal: Path, writers: dict[str, _SplitWriter], statistics: Statistics) -> int:
    """Restore the units at the start of the journal whose images are all in finished shards.

    Truncate the journal there, and return the number of units.
    """
    done = end = 0
    if journal.exists():
        rows: Counter[str] = Counter()
        with open(journal, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                facts = json.loads(line)
                here = {split: sum(counts.values()) for split, counts in facts["rows"].items()}
                rows.update(here)
                if any(rows[split] > writers[split].finished for split in here):
                    break
                for split, count in here.items():
                    writers[split].seen += count
                statistics.add(facts)
                done, end = done + 1, end + len(line)
        os.truncate(journal, end)
    return done


def _judge(reading: Reading, statistics: Statistics, policy: str) -> None:
    """Apply the policy to a file that another split or class has too."""
    facts = reading.facts
    twin = statistics.twin_of(facts)
    if twin is None or not (twin.other_class or twin.split != facts["split"]):
        return
    if policy == "refuse":
        names = [
            f"{unit} ({split}, class {label!r})" if twin.other_class else f"{unit} ({split})"
            for unit, split, label in (
                (facts["unit"], facts["split"], facts["label"]),
                (twin.unit, twin.split, twin.label),
            )
        ]
        raise DataError(
            f"{names[0]} and {names[1]} are the same file; remove one, or set "
            "prepare.duplicates to drop or report"
        )
    if policy == "drop":
        rule = DUPLICATE if twin.split != facts["split"] else TWO_CLASSES
        for split, counts in facts["rows"].items():
            facts["dropped"] += [[rule, n, split, label] for label, n in counts.items()]
        facts |= {"rows": {}, "sizes": {}, "intensity": {}}
        reading.rows.clear()


def _finish(target: Target, listing: Listing, statistics: Statistics) -> dict[str, Any]:
    """Write index, manifest and data card beside the shards."""
    folder = target.work / "data"
    for split in SPLITS:
        for label in listing.class_names:
            if not statistics.counts[split][label]:
                left = statistics.left_out_of(split, label)
                raise DataError(f"class {label!r} has no images in split {split}{left}")
        _write_index(folder, split, statistics.shards[split])
    names = [name for split in SPLITS for name in (*statistics.shards[split], index_name(split))]
    manifest = target.about | {
        "class_names": list(listing.class_names),
        "options": listing.options,
        "counts": statistics.counts,
        "dropped": statistics.dropped_rows(),
        "duplicates": statistics.duplicates,
        "notes": list(listing.notes),
        "shards": statistics.shards,
        "files": {name: sha256(folder / name) for name in names},
        "bytes": {name: (folder / name).stat().st_size for name in names},
    }
    write_json(folder / MANIFEST, manifest)
    about = {"origin": target.origin, "licence": target.licence, "paper": target.paper}
    card.write(folder / CARD, manifest, statistics, about)
    return manifest


def _write_index(folder: Path, split: str, shards: list[str]) -> None:
    """Write all columns but the pictures, with shard and row group of each image."""
    schema = pa.schema(
        [
            *(SCHEMA.field(name) for name in COLUMNS),
            ("shard", pa.int32()),
            ("row_group", pa.int32()),
        ]
    )
    with pq.ParquetWriter(
        folder / index_name(split),
        schema,
        compression="zstd",
        write_statistics=False,
        write_page_checksum=True,
    ) as index:
        for shard, name in enumerate(shards):
            with pq.ParquetFile(folder / name) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, list(COLUMNS), use_threads=False)
                    for column, value in (("shard", shard), ("row_group", group)):
                        values = pa.array([value] * len(table), pa.int32())
                        table = table.append_column(column, values)
                    index.write_table(table)
