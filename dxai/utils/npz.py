"""Files of arrays, .npz, that are never whole in memory."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy


def write_array(file: zipfile.ZipFile, name: str, parts: Iterable[np.ndarray], rows: int) -> None:
    """Write an array in parts of its first axis, as `np.savez_compressed` does in one.

    Parameters
    ----------
    file : ZipFile
        Open for writing, with `compression=zipfile.ZIP_DEFLATED`.
    name : str
        Key of the array.
    parts : iterable of ndarray
        At least one; equal in type and in all axes but the first.
    rows : int
        The sum of their first axes.
    """
    written = 0
    with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
        for part in parts:
            if not written:
                header = {
                    "descr": npy.dtype_to_descr(part.dtype),
                    "fortran_order": False,
                    "shape": (rows, *part.shape[1:]),
                }
                npy.write_array_header_1_0(entry, header)
            entry.write(np.ascontiguousarray(part).tobytes())
            written += len(part)
    assert written == rows, f"{name}: {written} rows of {rows}"


class Rows:
    """Reads rows of an array in an .npz file, one at a time.

    Rows in ascending order are read in one pass; a step back starts it again.

    Attributes
    ----------
    shape : tuple of int
        Of the whole array.
    """

    def __init__(self, entry: IO[bytes]) -> None:
        self._entry = entry
        assert npy.read_magic(entry) == (1, 0)
        self.shape, fortran, self.dtype = npy.read_array_header_1_0(entry)
        assert not fortran
        self._start = entry.tell()

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        """Return these rows, (len(rows), ...)."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        for place, row in enumerate(rows):
            self._entry.seek(self._start + row * size)
            found[place] = np.frombuffer(self._entry.read(size), self.dtype).reshape(found[0].shape)
        return found


@contextlib.contextmanager
def open_rows(path: Path, name: str) -> Iterator[Rows]:
    """Open the array `name` of an .npz file; KeyError if there is none."""
    with zipfile.ZipFile(path) as file, file.open(f"{name}.npy") as entry:
        yield Rows(entry)


def names(path: Path) -> list[str]:
    """List the arrays of an .npz file."""
    with zipfile.ZipFile(path) as file:
        return [name.removesuffix(".npy") for name in file.namelist()]
