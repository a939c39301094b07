"""Claims about synthetic results for which the verdict is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from dxai.results.claims import all_claims
from dxai.results.methods import best_baseline
from dxai.results.table_specs import SPECS
from dxai.results.verdicts import verdict
from tests.fixtures import small_params
from tests.outcomes import (
    IMAGES,
    beta_area,
    deletion_area,
    write_cross,
    write_outcomes,
    write_stability,
)

PARAMS = small_params()


def claims(
    folders: Sequence[Path] = (), cross: Sequence[Path] = (), stability: Sequence[Path] = ()
) -> pd.DataFrame:
    found = all_claims(folders, cross, stability, PARAMS)
    assert list(found.columns) == SPECS["claims"].names
    found = found[found["table"] != "definition1"]  # test_definition.py has those
    assert found.notna().all(axis=None)
    return found


def test_table_1_is_about_the_mean_of_the_seeds_and_the_best_of_either_sign(tmp_path: Path) -> None:
    found = claims(
        [
            write_outcomes(tmp_path, "ig", [("ig", "signed", 0.2), ("ig", "relu", 0.4)]),
            write_outcomes(tmp_path, "lrp", [("lrp", "relu", 0.3)]),
            write_outcomes(tmp_path, "lime", [("lime", "failed", "broke")]),
            write_outcomes(tmp_path, "naive", [("naive", "part", 1.0)]),
            write_outcomes(tmp_path, "dxai-0", [("dxai", "part", 0.8), ("shuffled", "part", 0.9)]),
            write_outcomes(tmp_path, "dxai-1", [("dxai", "part", 0.6)], seed=1),
        ]
    )
    (claim,) = found.to_dict("records")
    case = claim["table"], claim["dataset"], claim["classifier"]
    assert case == ("table1", "textures", "resnet18")
    assert (claim["other"], claim["sign"], claim["seeds"]) == ("ig", "relu", 2)
    assert (claim["images"], claim["groups"]) == (IMAGES, IMAGES // 3)
    assert claim["ours_value"] == pytest.approx(beta_area(0.7))
    assert claim["other_value"] == pytest.approx(beta_area(0.4))
    assert claim["delta"] == pytest.approx(beta_area(0.7) - beta_area(0.4))
    assert claim["ours_low"] < claim["ours_value"] < claim["ours_high"]
    assert claim["delta_low"] < claim["delta"] < claim["delta_high"] < 0
    assert claim["holds"]


@pytest.mark.parametrize(("lost", "holds"), [(0.9, True), (0.4, False), (0.1, False)])
def test_a_claim_holds_if_the_whole_interval_is_below_0(
    tmp_path: Path, lost: float, holds: bool
) -> None:
    ig = write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)])
    ours = write_outcomes(tmp_path, "dxai-0", [("dxai", "part", lost)])
    (claim,) = claims([ig, ours]).to_dict("records")
    assert claim["holds"] == holds
    assert claim["delta"] == pytest.approx(beta_area(lost) - beta_area(0.4))


@pytest.mark.parametrize(("alone", "holds"), [(True, True), (False, False)])
def test_neighbours_that_agree_count_as_one(tmp_path: Path, alone: bool, holds: bool) -> None:
    """Ours wins on the six images of one group of ten: six accidents, or a single one."""
    groups = {"group": (lambda i: f"g{i}") if alone else (lambda i: f"g{i // 6}")}
    ig = write_outcomes(tmp_path, "ig", [("ig", "relu", lambda i: i >= 54)], **groups)
    ours = write_outcomes(
        tmp_path, "dxai-0", [("dxai", "part", lambda i: i >= 54 or i < 6)], **groups
    )
    (claim,) = claims([ig, ours]).to_dict("records")
    assert claim["groups"] == (60 if alone else 10)
    assert claim["delta"] == pytest.approx(-0.055)
    assert claim["holds"] == holds


def test_images_are_compared_with_themselves(tmp_path: Path) -> None:
    """Both lose half of the images; ours a few more of them. The intervals overlap by far."""
    ig = write_outcomes(tmp_path, "ig", [("ig", "relu", lambda i: i % 2 == 0)])
    more = write_outcomes(
        tmp_path, "dxai-0", [("dxai", "part", lambda i: i % 2 == 0 or i % 6 == 1)]
    )
    (claim,) = claims([ig, more]).to_dict("records")
    assert claim["ours_high"] - claim["ours_low"] > 0
    assert claim["holds"]
    other = write_outcomes(
        tmp_path / "b", "dxai-0", [("dxai", "part", lambda i: i % 2 == 1 or i % 30 == 0)]
    )
    (claim,) = claims([ig, other]).to_dict("records")
    assert claim["delta"] < 0 and not claim["holds"]


def test_ours_against_its_own_spectrum(tmp_path: Path) -> None:
    rows = [("dxai", "part", 0.8), ("shuffled", "part", 0.9), ("random_phase", "part", 0.1)]
    found = claims([write_outcomes(tmp_path, "dxai-0", rows)])
    (claim,) = found.to_dict("records")  # there is no baseline to be below
    assert (claim["table"], claim["other"], claim["holds"]) == ("table1", "random_phase", True)
    assert claim["delta"] == pytest.approx(beta_area(0.8) - beta_area(0.1))


def test_table_2_has_its_own_best_baseline_and_is_not_divided_by_its_range(tmp_path: Path) -> None:
    folders = [
        write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)], deletion=[0.1]),
        write_outcomes(tmp_path, "lime", [("lime", "relu", 0.2)], deletion=[0.6]),
        write_outcomes(tmp_path, "dxai-0", [("dxai", "part", 0.8)], deletion=[0.3]),
        write_outcomes(tmp_path, "dxai-1", [("dxai", "part", 0.8)], seed=1, deletion=[0.1]),
    ]
    first, second = claims(folders).to_dict("records")
    assert (first["table"], first["other"], first["holds"]) == ("table1", "ig", True)
    assert (second["table"], second["other"], second["holds"]) == ("table2", "lime", False)
    assert second["ours_value"] == pytest.approx(deletion_area(0.2))
    assert second["other_value"] == pytest.approx(deletion_area(0.6))
    assert second["delta"] == pytest.approx(deletion_area(0.2) - deletion_area(0.6))
    assert 0 < second["delta_low"] < second["delta"] < second["delta_high"] < 0.2
    assert second["ours_high"] <= 0.2


def test_datasets_and_classifiers_are_kept_apart(tmp_path: Path) -> None:
    folders = []
    for dataset, classifier, lost in (("afhq", "simple", 0.9), ("afhq", "resnet18", 0.1)):
        named = {"dataset": dataset, "classifier": classifier}
        folders.append(write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)], **named))
        folders.append(write_outcomes(tmp_path, "dxai-0", [("dxai", "part", lost)], **named))
    holds = claims(folders).set_index("classifier")["holds"]
    assert holds.to_dict() == {"simple": True, "resnet18": False}


def test_the_diagonal_of_table_3_in_row_and_column(tmp_path: Path) -> None:
    lost = {("one", "one"): 0.8, ("one", "two"): 0.3, ("two", "one"): 0.9, ("two", "two"): 0.6}
    folders = [write_cross(tmp_path, *pair, share) for pair, share in lost.items()]
    folders += [write_cross(tmp_path, "one", "one", 0.6, seed=1)]
    found = claims(cross=folders)
    assert (found["table"] == "table3").all()
    keyed = found.set_index(["classifier", "other"])
    expected = {
        # Of "one" the mean over two seeds is 0.7: more than 0.3 and less than 0.9.
        ("one", "trained for one, scored by two"): (0.7, 0.3, True),
        ("one", "trained for two, scored by one"): (0.7, 0.9, False),
        ("two", "trained for two, scored by one"): (0.6, 0.9, False),
        ("two", "trained for one, scored by two"): (0.6, 0.3, True),
    }
    assert set(keyed.index) == set(expected)
    for pair, (own, other, holds) in expected.items():
        claim = keyed.loc[pair]
        assert claim["ours_value"] == pytest.approx(beta_area(own))
        assert claim["delta"] == pytest.approx(beta_area(own) - beta_area(other))
        assert claim["holds"] == holds
        assert claim["claim"].endswith("row") == (f"trained for {pair[0]}" in pair[1])
    assert keyed.loc[("one", "trained for one, scored by two"), "seeds"] == 2


def test_table_4_is_about_the_last_step(tmp_path: Path) -> None:
    folder = write_stability(
        tmp_path,
        {1: (0.3, 0.5), 7: (0.1, 0.2), 20: (0.05, 0.1)},
        {"gradcam": (0.01, 0.3), "internal_influence": (0.5, 0.05)},
    )
    found = claims(stability=[folder])
    assert (found["table"] == "table4").all()
    keyed = found.set_index("other")
    assert keyed["holds"].to_dict() == {"gradcam": True, "internal_influence": False}
    assert keyed["ours_value"].tolist() == pytest.approx([0.1, 0.1])
    assert keyed["delta"].to_dict() == pytest.approx({"gradcam": -0.2, "internal_influence": 0.05})
    assert (keyed["seeds"] == 3).all()


def test_constant_maps_have_no_part_in_table_4(tmp_path: Path) -> None:
    folder = write_stability(tmp_path, {20: (0.05, 0.1)}, {"gradcam": (0.01, 0.3)}, constant=10)
    (claim,) = claims(stability=[folder]).to_dict("records")
    assert claim["delta"] == pytest.approx(-0.2, abs=0.005)
    assert claim["holds"]


def test_without_seeds_or_results_nothing_is_claimed(tmp_path: Path) -> None:
    single = write_stability(tmp_path, {20: (0.05, 0.1)}, {"gradcam": (0.01, 0.3)}, seeds=[0])
    assert claims(stability=[single]).empty
    assert claims([write_outcomes(tmp_path, "ig", [("ig", "relu", 0.4)])]).empty
    broken = write_outcomes(tmp_path, "lime", [("lime", "failed", "broke")])
    ours = write_outcomes(tmp_path, "dxai-0", [("dxai", "part", 0.8)])
    assert claims([broken, ours]).empty


def test_the_best_baseline_of_a_column() -> None:
    rows = [
        {"method": "ig", "sign": "relu", "status": "ok", "auc": 0.8, "auc_deletion": None},
        {"method": "lime", "sign": "relu", "status": "ok", "auc": 0.9, "auc_deletion": 0.1},
        {"method": "lrp", "sign": "relu", "status": "failed", "auc": 0.1, "auc_deletion": 0.0},
        {"method": "naive", "sign": "part", "status": "ok", "auc": 0.1, "auc_deletion": 0.0},
        {"method": "dxai", "sign": "part", "status": "ok", "auc": 0.1, "auc_deletion": 0.0},
        {"method": "random", "sign": "signed", "status": "ok", "auc": 0.1, "auc_deletion": 0.0},
    ]
    found = best_baseline(rows)
    assert found is not None and found["method"] == "ig"
    found = best_baseline(rows, "auc_deletion")
    assert found is not None and found["method"] == "lime"
    assert best_baseline(rows[2:]) is None, "signed grain is nothing to compare ours with"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.2, -0.1, "holds"),
        (-0.2, 0.0, "undecided"),
        (-0.2, 0.1, "undecided"),
        (0.0, 0.0, "undecided"),
        (0.1, 0.2, "reversed"),
        (None, None, "unknown"),
        (float("nan"), float("nan"), "unknown"),
    ],
)
def test_a_verdict_is_what_the_interval_says(
    low: float | None, high: float | None, words: str
) -> None:
    assert verdict(low, high) == words
