"""Scores of a classifier so simple that every outcome is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dxai.evaluate.scores import CURVES, Scorer, chosen_images, curve
from dxai.params import EvaluateParams
from dxai.types import Batch


class Brightness(nn.Module):
    """Class 1 above mean brightness 0, class 0 below; certain of it."""

    def __init__(self, threshold=0.0):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        level = 50 * (x.mean((1, 2, 3)) - self.threshold)
        return torch.stack([-level, level], dim=1)


def batch(values, labels=None):
    images = torch.tensor(values)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    labels = torch.tensor(labels or [int(v > 0) for v in values])
    n = len(values)
    return Batch(images, labels, torch.arange(n), [f"i{k}" for k in range(n)], ["g"] * n)


def scorer(**params):
    settings = EvaluateParams(batch_size=3, bootstrap=50, **params)
    return Scorer(Brightness(), Brightness(0.3), ["dark", "bright"], settings, seed=0)


def test_every_curve_of_a_part_whose_effect_is_known():
    found = scorer()
    # Images of brightness 0.5; taking 1 away crosses 0 after beta = 0.5 and 0.3 after 0.2.
    images = batch([0.5] * 4)
    found.add("m", "part", images, torch.ones(4, 1, 4, 4), images.images - 0.1)
    row = found.row("m", "part", 0.25)
    beta = row["curves"]["beta"]
    assert beta["level"] == pytest.approx([k / 10 for k in range(11)])
    assert beta["accuracy"] == [1, 1, 1, 1, 1, beta["accuracy"][5], 0, 0, 0, 0, 0]
    assert row["auc"] == pytest.approx(0.45 + 0.1 * beta["accuracy"][5])
    assert row["auc_transfer"] == pytest.approx(
        0.15 + 0.1 * row["curves"]["transfer"]["accuracy"][2]
    )
    assert row["auc_blur"] == pytest.approx(row["auc"])  # a constant does not change when blurred
    # ||gamma psi||^2 / ||x||^2 = 0.2 leaves 0.5 (1 - sqrt 0.2) > 0: nothing is lost.
    assert row["auc_energy"] == 1
    assert row["psnr_db"] == pytest.approx(10 * math.log10(4 / 0.01), abs=1e-3)
    assert row["psnr_removed_db"] == pytest.approx(10 * math.log10(4), abs=1e-3)
    assert row["mean_abs_distinct"] == 1
    assert (row["images"], row["accuracy"], row["seconds_per_image"]) == (4, 1, 0.25)
    assert row["neutrality"] == pytest.approx(0, abs=1e-6)
    assert row["probabilities"]["bright"][0] == pytest.approx([0, 1], abs=1e-4)
    assert "dark" not in row["probabilities"]


def test_neutrality_is_one_where_the_classifier_is_undecided():
    found = scorer()
    images = batch([0.5, -0.25])
    found.add("m", "part", images, images.images)
    assert found.row("m", "part", None)["neutrality"] == pytest.approx(1)


def test_accuracy_is_over_all_images_also_those_that_were_wrong():
    found = scorer()
    images = batch([0.5, 0.5, -0.5, -0.5], labels=[1, 0, 0, 0])
    found.add("m", "part", images, torch.zeros(4, 1, 4, 4))
    row = found.row("m", "part", None)
    assert row["accuracy"] == 0.75
    assert row["auc"] == 1  # relative to accuracy(0)
    assert row["psnr_db"] is None


def test_batches_do_not_matter():
    values = [0.9, -0.3, 0.1, -0.7, 0.4, 0.2]
    whole, halves = scorer(), scorer()
    images = batch(values)
    part = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    whole.add("m", "part", images, part)
    for cut in (slice(0, 2), slice(2, 6)):
        piece = Batch(
            images.images[cut], images.labels[cut], images.index[cut],
            images.ids[cut], images.groups[cut],
        )  # fmt: skip
        halves.add("m", "part", piece, part[cut])
    assert whole.row("m", "part", None) == halves.row("m", "part", None)


def test_outcomes_hold_what_the_curves_are_made_of():
    found = scorer()
    images = batch([0.5, -0.25])
    found.add("a", "relu", images, images.images)
    found.add("a", "signed", images, images.images * 2)
    outcomes = found.outcomes()
    assert len(outcomes) == 2 * 2 * (11 + 6 + 11 + 11)
    assert set(outcomes["curve"]) == set(CURVES)
    np.testing.assert_allclose(outcomes[["p0", "p1"]].sum(axis=1), 1, rtol=1e-5)
    signed = curve(outcomes[outcomes["sign"] == "signed"], "beta")
    assert signed.correct.shape == (2, 11)
    assert list(signed.groups) == ["g", "g"]


def test_chosen_images_are_spread_evenly():
    assert chosen_images(5, 0).tolist() == [0, 1, 2, 3, 4]
    assert chosen_images(5, 9).tolist() == [0, 1, 2, 3, 4]
    chosen = chosen_images(100, 10)
    assert len(set(chosen.tolist())) == 10
    assert (chosen[0], chosen[-1]) == (0, 99)
