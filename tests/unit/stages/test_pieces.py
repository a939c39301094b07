"""Files made of pieces are those of one piece, in the memory of one."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from dxai.config.schema import EvaluateParams
from dxai.metrics.scorer import Scorer
from dxai.paths import ATTRIBUTIONS, IMAGES, OUTCOMES
from dxai.stages import pieces as module
from dxai.stages.pieces import Pieces
from dxai.types import Batch
from dxai.utils.npz import open_rows


class Brightness(nn.Module):
    """Class 1 above mean brightness 0."""

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean((1, 2, 3))
        return torch.stack([-level, level], dim=1)


def make_scorer() -> Scorer:
    settings = EvaluateParams(batch_size=4, bootstrap=20, beta_steps=2)
    return Scorer(Brightness(), None, ["dark", "bright"], settings, 0, ["beta", "deletion"])


def scored(scorer: Scorer, first: int, count: int, size: int) -> tuple[np.ndarray, Tensor]:
    """Score images first .. first + count - 1; return their indices and maps."""
    index = torch.arange(first, first + count)
    images = (index % 7 / 3 - 1)[:, None, None, None].expand(-1, 3, size, size).contiguous()
    names = [f"image {i}" for i in index.tolist()]
    batch = Batch(images, (images[:, 0, 0, 0] > 0).long(), index, names, names)
    for method in ("ours", "other"):
        scorer.add(method, "part", batch, 0.5 * images)
    return index.numpy(), 0.5 * images


def save(folder: Path, sizes: list[int], size: int = 8) -> Pieces:
    scorer, pieces, first = make_scorer(), Pieces(folder, len(sizes)), 0
    pieces.start()
    for k, count in enumerate(sizes):
        index, maps = scored(scorer, first, count, size)
        pieces.save(k, index, scorer.take(), {"ours": maps.numpy()}, 0.5)
        first += count
    return pieces


def test_files_are_those_of_one_piece(tmp_path: Path) -> None:
    scorer = make_scorer()
    added = [scored(scorer, first, count, 8) for first, count in ((0, 4), (4, 4), (8, 1))]
    index, maps = (np.concatenate(values) for values in zip(*added, strict=True))
    pieces = save(tmp_path / "item/of-parts", [4, 4, 1])
    assert pieces.summary(scorer, "ours", "part", 0.1) == scorer.row("ours", "part", 0.1)
    assert pieces.seconds == 1.5
    (tmp_path / "out").mkdir()
    pieces.write(tmp_path / "out")
    np.savez_compressed(tmp_path / "maps.npz", index=index, ours=maps)
    assert (tmp_path / "out" / ATTRIBUTIONS).read_bytes() == (tmp_path / "maps.npz").read_bytes()
    for name, table in ((OUTCOMES, scorer.outcomes()), (IMAGES, scorer.images())):
        expected = io.BytesIO()
        table.to_parquet(expected, index=False)
        assert (tmp_path / "out" / name).read_bytes() == expected.getvalue(), name
    pieces.remove()
    assert not (tmp_path / "item").exists()


def test_a_long_table_has_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 50)
    pieces = save(tmp_path / "item/a", [4, 4, 1])
    pieces.write_table(OUTCOMES, tmp_path / OUTCOMES)
    scorer = make_scorer()
    scored(scorer, 0, 9, 8)
    found = pd.read_parquet(tmp_path / OUTCOMES)
    keys = ["method", "curve", "index", "level"]
    expected = scorer.outcomes().sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(found.sort_values(keys, ignore_index=True), expected)


def test_pieces_of_other_settings_are_removed(tmp_path: Path) -> None:
    save(tmp_path / "item/a", [2])
    other = Pieces(tmp_path / "item/b", 1)
    other.start()
    assert not other.has(0)
    assert not (tmp_path / "item/a").exists()


def peak(folder: Path, count: int) -> int:
    """Write the files of many pieces of 3 MiB; return the most memory that this took, bytes."""
    pieces = save(folder / "item/a", [4] * count, size=256)
    pieces.write(folder)
    pieces.summary(make_scorer(), "ours", "part", 0.1)
    with open_rows(folder / ATTRIBUTIONS, "ours") as rows:
        assert rows[[4 * count - 1]].shape == (1, 3, 256, 256)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    few, many = (
        int(
            subprocess.run(
                [sys.executable, "-m", __name__, str(tmp_path / str(count)), str(count)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for count in (2, 30)
    )
    assert many - few < 20 * 2**20, f"{few / 2**20:.0f} and {many / 2**20:.0f} MiB"


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir()
    print(peak(Path(sys.argv[1]), int(sys.argv[2])))
