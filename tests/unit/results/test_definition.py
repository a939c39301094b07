"""Definition 1 where the undecided point of each image is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from scipy.stats import entropy
from torch import Tensor, nn

from dxai.config.schema import EvaluateParams
from dxai.explain.projection import distance
from dxai.metrics.scorer import Scorer
from dxai.results import table_builders
from dxai.results.claims import all_claims
from dxai.results.definition import best_points
from dxai.results.table_specs import SPECS
from dxai.types import Batch
from dxai.utils.files import write_json
from tests.fixtures import small_params

SLOPE = 5.0
Rows = dict[tuple[str, str], Tensor]
"""Maps method and sign to psi, (B, 1, 4, 4)."""


class Linear(nn.Module):
    """Class 1 with probability expit(SLOPE m), m the mean of the columns up to `last`."""

    def __init__(self, last: int = 4, threshold: float = 0.0) -> None:
        super().__init__()
        self.last, self.threshold = last, threshold

    def forward(self, x: Tensor) -> Tensor:
        level = SLOPE * (x[..., : self.last].mean((1, 2, 3)) - self.threshold) / 2
        return torch.stack([-level, level], dim=1)


def share_of_log2(p: float) -> float:
    return float(entropy([p, 1 - p], base=2))


def flat(*values: float, last: int = 4) -> Tensor:
    """Images of these values in the columns up to `last`, 0 beyond."""
    images = torch.tensor(values)[:, None, None, None].expand(-1, 1, 4, 4).clone()
    images[..., last:] = 0
    return images


def write(
    folder: Path, images: Tensor, rows: Rows, networks: tuple[nn.Module, nn.Module | None]
) -> Path:
    """Score the parts of images of class 1 and write a folder; `neutral` has no row of tables."""
    count, params = len(images), EvaluateParams(bootstrap=100)
    scorer = Scorer(*networks, ["dark", "bright"], params, 0)
    names, groups = [f"i{k}" for k in range(count)], [f"g{k // 2}" for k in range(count)]
    batch = Batch(images, torch.ones(count, dtype=torch.long), torch.arange(count), names, groups)
    for (method, sign), distinct in rows.items():
        scorer.add(method, sign, batch, distinct)
    folder.mkdir(parents=True)
    scorer.outcomes().to_parquet(folder / "outcomes.parquet", index=False)
    scorer.images().to_parquet(folder / "images.parquet", index=False)
    summary = {
        "dataset": "d", "classifier": "c", "seed": 0, "profile": "p", "steps": 7, "images": count,
        "rows": [scorer.row(*row, None) for row in rows if row[0] != "neutral"],
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    return folder


def test_the_best_point_is_where_a_linear_network_is_undecided(tmp_path: Path) -> None:
    """Image v less beta 0.8 has mean 0 at beta = v / 0.8; the last one only beyond the ray."""
    images, part = flat(0.0, 0.24, 0.4, 0.8, 0.96), flat(0.8, 0.8, 0.8, 0.8, 0.8)
    networks = Linear(), Linear(threshold=0.1)
    folder = write(tmp_path / "ig", images, {("ig", "relu"): part}, networks)
    found = best_points(folder, "ig", "relu")
    assert found["beta"].tolist() == [0, 0.3, 0.5, 1, 1]
    left = [0, 0, 0, 0, 0.16]
    own = [share_of_log2(expit(SLOPE * m)) for m in left]
    np.testing.assert_allclose(found["entropy"], own, rtol=1e-5)
    assert found["missed"].tolist() == [False] * 4 + [own[-1] < 0.9]
    twin = [expit(SLOPE * (m - 0.1)) for m in left]
    np.testing.assert_allclose(found["twin_own"], twin, rtol=1e-5)
    np.testing.assert_allclose(found["twin_entropy"], list(map(share_of_log2, twin)), rtol=1e-5)
    there = images - torch.tensor(found["beta"])[:, None, None, None] * part
    np.testing.assert_allclose(found["distance"], distance(images, there), rtol=1e-5)
    np.testing.assert_allclose(found["squared"], [(b * 0.8) ** 2 for b in found["beta"]], rtol=1e-5)


def test_nothing_is_interpolated_between_levels(tmp_path: Path) -> None:
    """Undecided at beta = 0.46 alone: 0.5 is nearest, and for a part this large still sure."""
    part = flat(8.0)
    folder = write(tmp_path / "ig", flat(3.68), {("ig", "relu"): part}, (Linear(), None))
    (point,) = best_points(folder, "ig", "relu").to_dict("records")
    assert point["beta"] == 0.5
    assert point["entropy"] == pytest.approx(share_of_log2(expit(SLOPE * -0.32)), rel=1e-5)
    assert point["missed"]
    assert np.isnan(point["twin_entropy"]) and np.isnan(point["twin_own"])


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Twelve images of 0.5; the classifier sees their left half, the twin all of them.

    The naive optimisation takes away what the classifier sees, ours the same from both halves. The
    best baseline finds nothing in the second half of the images. Signed grain is no baseline.
    """
    networks, images = (Linear(last=2), Linear()), flat(*[0.5] * 12)
    half, nothing = flat(*[0.5] * 12, last=2), flat(*[0.0] * 12)
    some = flat(*[0.5] * 6, *[0.0] * 6)
    ours: Rows = {("dxai", "part"): 2 * images, ("neutral", "part"): images}
    baselines: dict[str, Rows] = {
        "ig": {("ig", "signed"): nothing, ("ig", "relu"): some},
        "random": {("random", "relu"): nothing, ("random", "signed"): half},
        "naive": {("naive", "part"): half},
    }
    found = [write(tmp_path / name, images, rows, networks) for name, rows in baselines.items()]
    return [write(tmp_path / "dxai-0", images, ours, networks), *found]


SURE = expit(SLOPE * 0.5)
"""Probability of class 1 in an image from which nothing is taken."""


def test_the_table_has_a_row_for_each_rule_and_two_for_ours(folders: list[Path]) -> None:
    table = table_builders.definition1(folders, small_params())
    assert list(table.columns) == SPECS["definition1"].names
    named = list(zip(table["method"], table["sign"], strict=True))
    assert named[:2] == [("dxai", "part"), ("neutral", "part")]
    assert set(named[2:]) == {
        ("ig", "signed"), ("ig", "relu"), ("naive", "part"),
        ("random", "relu"), ("random", "signed"),
    }  # fmt: skip
    rows = dict(zip(named, table.to_dict("records"), strict=True))
    ours, neutral, naive = (rows[m, "part"] for m in ("dxai", "neutral", "naive"))
    assert (ours["share"], ours["share_low"], ours["share_high"]) == (1, 1, 1)
    assert (ours["beta"], neutral["beta"], naive["beta"]) == (0.5, 1, 1)
    for row in (ours, neutral):
        assert row["distance"] == pytest.approx(0.75)
        assert row["psnr_db"] == pytest.approx(10 * np.log10(4 / 0.25), abs=1e-3)
        assert row["twin_own"] == pytest.approx(0.5) and row["steps"] == 7
    assert naive["share"] == 1 and naive["distance"] == pytest.approx(0.375)
    twin = expit(SLOPE * 0.25)
    assert naive["twin_own"] == pytest.approx(twin, rel=1e-5)
    assert naive["twin_entropy"] == pytest.approx(share_of_log2(twin), rel=1e-5)
    best = rows["ig", "relu"]
    assert best["share"] == 0.5 and 0 < best["share_low"] < 0.5 < best["share_high"] < 1
    assert best["entropy"] == pytest.approx((1 + share_of_log2(SURE)) / 2, rel=1e-5)
    assert best["psnr_db"] == pytest.approx(10 * np.log10(4 / 0.125), abs=1e-3)
    assert rows["random", "relu"]["share"] == 0 and rows["random", "relu"]["psnr_db"] > 100
    assert rows["random", "signed"]["share"] == 1
    assert pd.isna(best["steps"])


def test_ours_is_compared_with_the_best_baseline_and_by_the_twin(folders: list[Path]) -> None:
    found = all_claims(folders, [], [], small_params())
    reached, agreed = found[found["table"] == "definition1"].to_dict("records")
    assert (reached["other"], reached["sign"]) == ("ig", "relu")
    assert (reached["ours_value"], reached["other_value"], reached["delta"]) == (0, 0.5, -0.5)
    assert reached["delta_high"] < 0 and reached["holds"]
    assert (reached["images"], reached["groups"], reached["seeds"]) == (12, 6, 1)
    assert agreed["other"] == "naive"
    lacks = 1 - share_of_log2(expit(SLOPE * 0.25))
    assert agreed["ours_value"] == pytest.approx(0, abs=1e-6)
    assert agreed["other_value"] == pytest.approx(lacks, rel=1e-5)
    assert agreed["holds"]


def test_what_was_not_measured_is_not_claimed(folders: list[Path]) -> None:
    ours, ig, random, naive = folders
    for some, others in (([ours, naive], ["naive"]), ([ours, ig, random], ["ig"]), ([ig], [])):
        found = all_claims(some, [], [], small_params())
        assert found.loc[found["table"] == "definition1", "other"].tolist() == others
