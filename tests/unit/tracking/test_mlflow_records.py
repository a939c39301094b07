"""Records of result files, before they are logged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dxai.paths import METRICS
from dxai.tracking.mlflow_records import (
    GUARDS,
    claimless,
    deltas,
    flat,
    guards,
    numbers,
    read_records,
)
from dxai.utils.files import write_json
from tests.fixtures import write_results


def row(sign: str = "part", method: str = "dxai", **values: float) -> dict[str, Any]:
    case = {"dataset": "d", "classifier": "c", "method": method, "sign": sign}
    return dict.fromkeys(GUARDS.values()) | case | values


def test_guards_are_those_of_our_rows_with_seeds_averaged() -> None:
    rows = [row(auc_blur=0.5, psnr_db=20.0), row(auc_blur=0.7), row(method="ig", auc_blur=0.1)]
    assert guards(rows) == pytest.approx({"auc_blur/d/c": 0.6, "psnr_db/d/c": 20.0})


@pytest.mark.parametrize(
    ("table", "other", "name"),
    [
        ("table1", "lrp", "table1/d/c/best_baseline"),
        ("table2", "gradcam", "table2/d/c/best_baseline"),
        ("table1", "random_phase", "table1/d/c/random_phase"),
        ("table3", "trained for a, scored by c", "table3/d/c/trained_for_a_scored_by_c"),
        ("table4", "gradcam", "table4/d/c/gradcam"),
    ],
)
def test_a_claim_has_a_name_that_does_not_depend_on_results(
    table: str, other: str, name: str
) -> None:
    claim = {"table": table, "dataset": "d", "classifier": "c", "other": other}
    values = {"delta": -0.2, "delta_low": -0.3, "delta_high": None}
    assert deltas([claim | values]) == {f"delta/{name}": -0.2, f"delta_low/{name}": -0.3}


def test_a_run_names_the_classifiers_of_which_nothing_is_claimed() -> None:
    rows = [row() | {"validity": "valid"}, row(method="ig") | {"validity": "valid"}]
    assert claimless({"table1": rows}) == {}
    rows += [row() | {"classifier": name, "validity": "brittle"} for name in ("e", "e", "f")]
    assert claimless({"table1": rows}) == {"brittle": "d/e, d/f"}
    rows.append(row() | {"classifier": "g", "validity": "at chance"})
    assert claimless({"table1": rows}) == {"brittle": "d/e, d/f", "at_chance": "d/g"}


def test_numbers_are_finite() -> None:
    values = {"a": 1, "b": 2, "c": "", "d": None, "e": math.nan, "f": math.inf, "g": "x", "h": []}
    assert numbers(values) == {"a": 1.0, "b": 2.0}


def test_flat_names_are_dotted_and_plain() -> None:
    nested = {"a": {"b c": 1, "d": {}}, "e/f": [2], "ü:": 3}
    assert dict(flat(nested)) == {"a.b_c": 1, "a.d": {}, "e/f": [2], "ü_": 3}


@pytest.mark.slow
def test_a_classifier_without_a_twin_has_no_record_of_one(tmp_path: Path) -> None:
    params, folders = write_results(tmp_path, rich=True)
    write_json(folders.classifier("textures", "resnet18", "twin") / METRICS, {"twin": "none"})
    _, records = read_records(tmp_path, params)
    tags = [record.tags for record in records if record.tags["kind"] == "classifier"]
    roles = {(tag["dataset"], tag["classifier"], tag["role"]) for tag in tags}
    assert ("textures", "simple", "twin") in roles
    assert ("textures", "resnet18", "twin") not in roles
