"""Scores of one stage item in pieces: a file for each batch of images, written as it is done.

A stage that is killed goes on after its last whole piece. The files of the item are made of all
pieces at the end, one piece in memory at a time, so they depend neither on the interruptions nor,
in their size, on the memory of the machine.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dxai.metrics.scorer import Scorer, of_method
from dxai.paths import ATTRIBUTIONS, IMAGES, OUTCOMES
from dxai.utils.files import atomic
from dxai.utils.npz import write_array

ROWS = 2**20
"""Rows of a row group of a table."""
SECONDS, INDEX = "seconds", "index"
Source = tuple[str, tuple[str, ...]]
"""Module of a stage, whose function `item` makes what is scored, and the arguments of both."""
MAP = "map "
"""First letters of the names of a piece's maps."""


class Pieces:
    """The pieces of an item, in a folder whose name stands for everything that decides them.

    Parameters
    ----------
    folder : Path
        `.work/scoring/ITEM/DIGEST`.
    count : int
        Number of pieces.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def start(self) -> None:
        """Make the folder, and remove pieces of the item that are of other settings or code."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.folder.parent.glob("*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def has(self, k: int) -> bool:
        return self._path(k).exists()

    def save(
        self,
        k: int,
        index: np.ndarray,
        tables: Sequence[pd.DataFrame],
        maps: Mapping[str, np.ndarray],
        seconds: float,
    ) -> None:
        """Write piece `k`.

        Parameters
        ----------
        k : int
            Its number, from 0.
        index : ndarray
            (B,), the indices of its images in their split.
        tables : sequence of DataFrame
            Outcomes and images, as `Scorer.take` returns them; none where nothing is scored.
        maps : dict
            Name to (B, C, H, W), or any other array.
        seconds : float
            The time that explaining took.
        """
        arrays: dict[str, Any] = {SECONDS: np.float64(seconds), INDEX: index}
        arrays |= {f"{MAP}{name}": values for name, values in maps.items()}
        for name, table in zip((OUTCOMES, IMAGES), tables, strict=bool(tables)):
            content = io.BytesIO()
            table.to_parquet(content, index=False)
            arrays[name] = np.frombuffer(content.getvalue(), np.uint8)
        with atomic(self._path(k)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    @property
    def seconds(self) -> float:
        """The time that all pieces took together."""
        return float(sum(self._each(SECONDS)))

    def summary(
        self, scorer: Scorer, method: str, sign: str, seconds_per_image: float | None
    ) -> dict[str, Any]:
        """Summarise one method over all pieces (`Scorer.summary`)."""
        outcomes, images = (
            pd.concat(
                [of_method(table, method, sign) for table in self._tables(name)],
                ignore_index=True,
            )
            for name in (OUTCOMES, IMAGES)
        )
        return scorer.summary(method, sign, outcomes, images, seconds_per_image)

    def maps(self, name: str, which: Iterable[int] | None = None) -> Iterator[np.ndarray]:
        """Yield the map `name` of each piece, or of some of them, that has it."""
        for k in range(self.count) if which is None else which:
            with np.load(self._path(k)) as file:
                if f"{MAP}{name}" in file.files:
                    yield file[f"{MAP}{name}"]

    def write(self, folder: Path) -> None:
        """Write the tables and maps of all pieces, OUTCOMES, IMAGES and ATTRIBUTIONS."""
        self.write_table(OUTCOMES, folder / OUTCOMES)
        self.write_table(IMAGES, folder / IMAGES)
        self.write_maps(folder / ATTRIBUTIONS)

    def write_table(self, name: str, path: Path) -> None:
        """Write the table `name` of all pieces, as `DataFrame.to_parquet` would in one."""
        writer: pq.ParquetWriter | None = None
        waiting: list[pd.DataFrame] = []

        def flush() -> None:
            nonlocal writer
            whole = pa.Table.from_pandas(pd.concat(waiting), preserve_index=False)
            writer = writer or pq.ParquetWriter(path, whole.schema)
            writer.write_table(whole, row_group_size=ROWS)
            waiting.clear()

        for table in self._tables(name):
            if waiting and sum(map(len, waiting)) + len(table) > ROWS:
                flush()
            waiting.append(table)
        flush()
        assert writer is not None
        writer.close()

    def write_maps(self, path: Path) -> None:
        """Write the indices of the images and their maps, as `np.savez_compressed` would in one."""
        with np.load(self._path(0)) as file:
            kept = [INDEX, *(name for name in file.files if name.startswith(MAP))]
        rows = sum(len(index) for index in self._each(INDEX))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name in kept:
                write_array(out, name.removeprefix(MAP), self._each(name), rows)

    def remove(self) -> None:
        """Remove the pieces; the files made of them are written."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _tables(self, name: str) -> Iterator[pd.DataFrame]:
        for content in self._each(name):
            yield pd.read_parquet(io.BytesIO(content.tobytes()))

    def _each(self, name: str) -> Iterator[np.ndarray]:
        for k in range(self.count):
            with np.load(self._path(k)) as file:
                yield file[name]

    def _path(self, k: int) -> Path:
        return self.folder / f"{k:06d}.npz"
