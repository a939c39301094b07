"""Scores of a classifier so simple that every outcome is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dxai.config.schema import EvaluateParams
from dxai.metrics.localisation import GroundTruth
from dxai.metrics.scorer import BY_TWIN, CURVES, LOCALISATION, Scorer, chosen_images, curve
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


def scorer(threshold=0.0, curves=CURVES, twin=True, deviation=0.1, **params):
    settings = EvaluateParams(**{"batch_size": 3, "bootstrap": 50, **params})
    other = Brightness(0.3) if twin else None
    return Scorer(Brightness(threshold), other, ["dark", "bright"], settings, 0, curves, deviation)


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
    # ||gamma psi||^2 / ||x||^2 = e leaves 0.5 (1 - sqrt e), above 0 up to 0.2: nothing is lost. The
    # twin needs 0.3, which is left up to e = 0.16: it is right at 0.1 and wrong at 0.2.
    assert row["auc_energy"] == 1
    assert row["curves"]["transfer_energy"]["accuracy"] == [1, 1, 1, 1, 1, 0]
    assert row["auc_transfer_energy"] == pytest.approx((0.1 + 0.1 / 2) / 0.2)
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


@pytest.mark.parametrize(("count", "levels"), [(1, 5), (2, 2), (4, 1), (5, 1)])
def test_a_pass_is_filled_by_whole_levels_and_no_part_of_more(count, levels):
    found, passes = scorer(batch_size=5, smooth=2), []
    for network in (found.classifier, found.twin):
        network.register_forward_pre_hook(
            lambda _, seen: passes.append((len(seen[0]), seen[0].untyped_storage().nbytes()))
        )
    images = batch([0.5] * count)
    found.add("m", "part", images, images.images)
    curves = (1, 10, 5, 1, 10, 5, 10, 5, 5, 4)  # each network sees the image itself once
    assert len(passes) == sum(math.ceil(curve / levels) for curve in curves)
    assert sum(size for size, _ in passes) == count * sum(curves)
    assert {stored // size for size, stored in passes} == {images.images[0].nbytes}


def test_outcomes_hold_what_the_curves_are_made_of():
    found = scorer()
    images = batch([0.5, -0.25])
    found.add("a", "relu", images, images.images)
    found.add("a", "signed", images, images.images * 2)
    outcomes = found.outcomes()
    assert len(outcomes) == 2 * 2 * (11 + 6 + 11 + 6 + 11 + 5 + 5)
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


def test_deletion_by_hand():
    """Images of 0.5 are bright above 0.46: until more than 8% of their pixels are black (0)."""
    found = scorer(threshold=0.46)
    images = batch([0.5] * 3)
    square = torch.full((3, 1, 20, 20), 0.5)
    images = Batch(square, images.labels, images.index, images.ids, images.groups)
    heat = torch.arange(400.0).reshape(1, 1, 20, 20).expand(3, -1, -1, -1)
    found.add("m", "relu", images, torch.zeros_like(square), heat=heat)
    row = found.row("m", "relu", None)
    drawn = row["curves"]["deletion"]
    assert drawn["level"] == [0, 0.05, 0.1, 0.15, 0.2]
    assert drawn["accuracy"] == [1, 1, 0, 0, 0]
    assert row["auc_deletion"] == pytest.approx(0.05 + 0.05 / 2)
    assert row["auc_deletion_low"] <= row["auc_deletion"] <= row["auc_deletion_high"]


@pytest.mark.parametrize(("fill", "area"), [(0.5, 0.2), (-1.0, 0.025)])
def test_deletion_has_a_ceiling_and_depends_on_what_is_filled_in(fill, area):
    found = scorer(threshold=0.46, deletion_fill=fill)
    images = batch([0.5] * 3)
    square = torch.full((3, 1, 20, 20), 0.5)
    images = Batch(square, images.labels, images.index, images.ids, images.groups)
    found.add("m", "relu", images, torch.rand(3, 1, 20, 20))
    assert found.row("m", "relu", None)["auc_deletion"] == pytest.approx(area)


def test_pixels_are_ranked_by_the_map_not_by_the_part():
    """The part of a map is the map times the image: here 0 where the map is largest."""
    found = scorer(threshold=0.1)
    pixels = torch.zeros(1, 1, 4, 5)
    pixels[0, 0, 0, :4] = 1.0  # the mean is 0.2; without two of them 0.1
    images = Batch(pixels, torch.tensor([1]), torch.tensor([0]), ["i"], ["g"])
    heat = torch.where(pixels > 0, 1.0, 2.0)
    found.add("map", "relu", images, heat / 2 * pixels, heat=heat)
    found.add("part", "part", images, heat / 2 * pixels)
    assert found.row("map", "relu", None)["auc_deletion"] == pytest.approx(0.2)
    assert found.row("part", "part", None)["auc_deletion"] < 0.15


def test_every_image_has_its_row():
    found = scorer()
    images = batch([0.5, -0.25, 0.75])
    masks = torch.zeros(3, 1, 4, 4)
    masks[0, 0, :2] = 1
    masks[2] = torch.nan
    difference = torch.full((3, 1, 4, 4), torch.nan)
    part = images.images * torch.tensor([1.0, 1, 0.5])[:, None, None, None]
    extra = {"uncertainty": torch.tensor([0.1, 0.2, 0.6])}
    truth = GroundTruth(masks, difference)
    found.add("m", "part", images, part, images.images, truth=truth, extra=extra)
    found.add("n", "relu", images, part)
    table = found.images()
    assert len(table) == 6
    named = ["id", "group", "label", "index", "method", "sign"]
    measured = ["psnr_removed_db", "mean_abs_distinct", "neutrality", "uncertainty", "psnr_db"]
    assert list(table) == [*named, *measured, *LOCALISATION]
    ours, other = table[table["method"] == "m"], table[table["method"] == "n"]
    assert ours["mean_abs_distinct"].tolist() == [0.5, 0.25, 0.375]
    assert ours["psnr_removed_db"][0] == pytest.approx(10 * math.log10(4 / 0.25), abs=1e-3)
    assert ours["psnr_db"].tolist() == pytest.approx([120] * 3, abs=1e-3)
    assert ours["neutrality"].tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert ours["energy_inside"].tolist() == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    assert other[["uncertainty", "psnr_db", *LOCALISATION]].isna().all(axis=None)
    row = found.row("m", "part", None)
    assert row["uncertainty"] == pytest.approx(0.3)
    assert (row["known"], row["energy_inside"], row["mask_area"]) == (1, 0.5, 0.5)
    assert row["correlation"] is None
    assert found.row("n", "relu", None)["known"] == 0


def test_only_the_curves_that_are_wanted():
    found = scorer(curves=["beta", "deletion"])
    images = batch([0.5, -0.25])
    found.add("m", "part", images, images.images)
    row = found.row("m", "part", None)
    assert set(found.outcomes()["curve"]) == set(row["curves"]) == {"beta", "deletion"}
    guards = ("auc_energy", "auc_transfer", "auc_transfer_energy", "auc_blur")
    assert [row[name] for name in guards] == [None] * 4
    assert row["auc_deletion"] is not None
    found = scorer(curves=["beta"])
    found.add("m", "part", images, images.images)
    assert found.row("m", "part", None)["auc_deletion"] is None


def test_the_smooth_classifier_answers_as_often_as_the_noise_lets_it():
    """The mean of 16 pixels has a deviation of 1: a brightness b is bright with Phi(b)."""
    found = scorer(deviation=4.0, smooth=400, batch_size=100, curves=["beta", "smooth"])
    images = batch([0.5] * 4)
    found.add("m", "part", images, torch.ones(4, 1, 4, 4))
    outcomes = found.outcomes()
    bright = outcomes[outcomes["curve"] == "smooth"].groupby("level")["p1"].mean()
    expected = [0.5 * (1 + math.erf(b / math.sqrt(2))) for b in (0.5, 0.25, 0, -0.25, -0.5)]
    assert bright.tolist() == pytest.approx(expected, abs=0.03)
    row = found.row("m", "part", None)
    middle = row["curves"]["smooth"]["accuracy"][2]
    assert row["curves"]["smooth"]["accuracy"] == [1, 1, middle, 0, 0]
    assert row["auc_smooth"] == pytest.approx(0.25 * (0.5 + 1 + middle))
    assert (row["smooth_deviation"], row["reason"]) == (4.0, "")


class HairTrigger(Brightness):
    """The other class where a faint checkerboard in the image has just this strength."""

    def forward(self, x):
        strength = (x * CHECKERBOARD).mean((1, 2, 3), keepdim=True)[:, 0, 0]
        return super().forward(x) * torch.where((strength - 0.01).abs() < 0.006, -1, 1)


CHECKERBOARD = (-1.0) ** (torch.arange(4)[:, None] + torch.arange(4))


def test_a_pattern_fainter_than_the_noise_wins_all_but_the_smooth_area():
    """A strength of 0.0155 beta turns the answer for beta from 0.3; noise of 0.4 spreads it to 0.1,
    which hits 0.004 .. 0.016 in one of twenty draws.
    """
    settings = EvaluateParams(batch_size=500, bootstrap=50)
    names = ["dark", "bright"]
    found = Scorer(HairTrigger(), None, names, settings, 0, ["beta", "smooth"], deviation=0.4)
    images = batch([0.5] * 50)
    found.add("m", "part", images, (-0.0155 * CHECKERBOARD).expand(50, 1, 4, 4))
    row = found.row("m", "part", None)
    assert row["curves"]["beta"]["accuracy"] == [1] * 3 + [0] * 8
    assert (row["auc"], row["auc_smooth"]) == (pytest.approx(0.25), 1)


@pytest.mark.parametrize(("deviation", "reason"), [(0.0, "less than 95%"), (None, "")])
def test_without_noise_there_is_no_smooth_area(deviation, reason):
    found = scorer(deviation=deviation)
    images = batch([0.5, -0.25])
    found.add("m", "part", images, images.images)
    row = found.row("m", "part", None)
    assert set(row["curves"]) == set(CURVES) - {"smooth"}
    assert (row["auc_smooth"], row["smooth_deviation"]) == (None, deviation)
    assert reason in row["reason"] and bool(reason) == bool(row["reason"])


def test_without_a_twin_there_is_no_transfer():
    found = scorer(twin=False)
    images = batch([0.5, -0.25])
    found.add("m", "part", images, images.images)
    row = found.row("m", "part", None)
    assert set(row["curves"]) == set(CURVES) - set(BY_TWIN)
    assert row["auc_transfer"] is None and row["auc_transfer_energy"] is None
