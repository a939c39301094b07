"""What result files become before anybody keeps it."""

from __future__ import annotations

import math

import pytest

from dxai.records import flat, headlines, numbers


def row(method: str, sign: str, auc: str, seed: int = 0, **others: str) -> dict[str, str]:
    empty = dict.fromkeys(
        ("accuracy", "delta_low", "delta_high", "psnr_db", "auc_energy", "auc_transfer"), ""
    )
    place = {"dataset": "d", "classifier": "c", "method": method, "sign": sign, "seed": str(seed)}
    return empty | {"auc_blur": "", "auc": auc} | place | others


def test_headlines_take_the_first_sign_rule() -> None:
    assert headlines([row("ig", "signed", "0.9"), row("ig", "relu", "0.5")]) == {"auc/d/c/ig": 0.9}


def test_headlines_average_the_seeds() -> None:
    rows = [row("dxai", "part", "0.5", 0, delta_low="-0.2"), row("dxai", "part", "0.7", 1)]
    assert headlines(rows) == pytest.approx({"auc/d/c/dxai": 0.6, "delta_low/d/c": -0.2})


def test_headlines_leave_out_what_has_no_number() -> None:
    assert headlines([row("lrp", "relu", ""), row("lime", "relu", "nan")]) == {}


def test_numbers_are_finite() -> None:
    values = {"a": 1, "b": "2.5", "c": "", "d": None, "e": math.nan, "f": "inf", "g": "x", "h": []}
    assert numbers(values) == {"a": 1.0, "b": 2.5}


def test_flat_names_are_dotted_and_plain() -> None:
    nested = {"a": {"b c": 1, "d": {}}, "e/f": [2], "ü:": 3}
    assert dict(flat(nested)) == {"a.b_c": 1, "a.d": {}, "e/f": [2], "ü_": 3}
