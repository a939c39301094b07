"""Arrays written and read in parts are those of NumPy."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from dxai.utils import npz


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """More than a window of deflate, in two types."""
    draw = np.random.default_rng(0)
    maps = draw.normal(size=(7, 2, 33, 31)).astype(np.float32).round(1)
    return {"index": np.arange(7), "maps": maps, "half": maps.astype(np.float16)}


def write(path: Path, arrays: dict[str, np.ndarray], size: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            parts = (array[first : first + size] for first in range(0, len(array), size))
            npz.write_array(file, name, parts, len(array))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_bytes_are_those_of_savez(arrays: dict[str, np.ndarray], tmp_path: Path, size: int) -> None:
    np.savez_compressed(tmp_path / "whole.npz", **arrays)  # type: ignore[arg-type]
    write(tmp_path / "parts.npz", arrays, size)
    assert (tmp_path / "parts.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_rows_are_read_in_any_order(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", **arrays)  # type: ignore[arg-type]
    assert npz.names(tmp_path / "whole.npz") == list(arrays)
    for name, array in arrays.items():
        with npz.open_rows(tmp_path / "whole.npz", name) as rows:
            assert rows.shape == array.shape
            for chosen in ([0, 1], [6, 2, 2], []):
                np.testing.assert_array_equal(rows[chosen], array[chosen])


def test_a_missing_array_is_an_error(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    write(tmp_path / "parts.npz", arrays, 2)
    with pytest.raises(KeyError, match="none"), npz.open_rows(tmp_path / "parts.npz", "none"):
        pass
