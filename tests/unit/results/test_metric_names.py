"""Names and numbers of the tables' cells."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dxai.results.metric_names import MetricValue as Value
from dxai.results.metric_names import metric_values, number, plain, worse

PLACE = {"dataset": "d", "classifier": "c"}


def auc(method: str, sign: str, value: Any, low: Any = None, high: Any = None) -> dict[str, Any]:
    bounds = {"auc": value, "auc_low": low, "auc_high": high}
    return PLACE | {"method": method, "sign": sign} | bounds


@pytest.mark.parametrize(
    ("table", "row", "expected"),
    [
        ("table1", auc("ig", "signed", 0.9, 0.8, 0.95), [Value("auc/d/c/ig", 0.9, 0.8, 0.95)]),
        (
            "table2",
            PLACE | {"method": "ig", "sign": "relu", "auc_deletion": 0.2}
            | {"auc_deletion_low": 0.1, "auc_deletion_high": 0.3},
            [Value("deletion/d/c/ig", 0.2, 0.1, 0.3)],
        ),
        (
            "table3",
            {"dataset": "d", "trained": "a", "scorer": "b", "auc": 1, "auc_low": 0, "auc_high": 2},
            [Value("cross/d/a/b", 1, 0, 2)],
        ),
        (
            "table4",
            PLACE | {"method": "dxai", "step": 7, "std": 0.5, "std_low": 0.4, "std_high": 0.6}
            | {"normalised": 0.2, "normalised_low": None, "normalised_high": None},
            [
                Value("std/d/c/dxai", 0.5, 0.4, 0.6, 7),
                Value("std_normalised/d/c/dxai", 0.2, step=7),
            ],
        ),
        (
            "table6",
            PLACE | {"test_accuracy": 0.98, "accuracy_low": 0.9, "accuracy_high": 1.0},
            [Value("accuracy/d/c", 0.98, 0.9, 1.0)],
        ),
    ],
)  # fmt: skip
def test_each_table_has_its_names(table: str, row: dict[str, Any], expected: list[Value]) -> None:
    assert metric_values({table: [row]}) == expected


def test_further_sign_rules_have_names_of_their_own() -> None:
    rows = [auc("ig", "signed", 0.9), auc("ig", "relu", 0.5), auc("lime", "relu", 0.7)]
    assert [(cell.name, cell.value) for cell in metric_values({"table1": rows})] == [
        ("auc/d/c/ig", 0.9),
        ("auc/d/c/ig-relu", 0.5),
        ("auc/d/c/lime", 0.7),
    ]


def test_a_first_sign_rule_that_broke_leaves_its_name_free() -> None:
    rows = [auc("ig", "signed", None), auc("ig", "relu", 0.5)]
    assert [cell.name for cell in metric_values({"table1": rows})] == ["auc/d/c/ig-relu"]


def test_seeds_are_averaged_and_a_missing_bound_leaves_none() -> None:
    rows = [auc("dxai", "part", 0.5, 0.4, 0.6), auc("dxai", "part", 0.7, 0.5)]
    (cell,) = metric_values({"table1": rows})
    assert (cell.value, cell.low, cell.high) == (pytest.approx(0.6), pytest.approx(0.45), None)


@pytest.mark.parametrize("value", [None, "", "nan", math.inf, "x", []])
def test_a_missing_number_is_no_metric(value: Any) -> None:
    assert number(value) is None
    assert metric_values({"table1": [auc("lrp", "relu", value)], "table3": []}) == []


def test_names_are_plain() -> None:
    assert plain("my set: 2") == "my_set__2"
    row = auc("ig", "signed", 0.9) | {"dataset": "a b"}
    assert metric_values({"table1": [row]})[0].name == "auc/a_b/c/ig"


@pytest.mark.parametrize(
    ("name", "worse_if"),
    [
        ("auc/d/c/dxai", "higher"),
        ("deletion/d/c/dxai", "higher"),
        ("std/d/c/dxai", "higher"),
        ("cross/d/c/c", "higher"),
        ("accuracy/d/c", "lower"),
        ("auc/d/c/ig", "never"),
        ("auc/d/c/dxai-relu", "never"),
        ("cross/d/c/other", "never"),
    ],
)
def test_which_way_a_cell_gets_worse(name: str, worse_if: str) -> None:
    assert worse(name, +0.1) == (worse_if == "higher")
    assert worse(name, -0.1) == (worse_if == "lower")
    assert not worse(name, 0.0)


def test_a_step_is_whole_though_mlflow_keeps_it_as_a_float() -> None:
    rows = [PLACE | {"method": "dxai", "step": s, "std": 0.5} for s in (7.0, math.nan)]
    assert [repr(value.step) for value in metric_values({"table4": rows})] == ["7", "0"]
