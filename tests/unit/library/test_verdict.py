from __future__ import annotations

from typing import Any

import pytest

from dxai.library.verdict import Verdict, _advice, _late_gain

GOOD = {"psnr_db": 30.0, "auc": 0.5, "auc_shuffled": 0.9, "neutral_share": 1.0}


def rows(random: float, ig: float = 0.9, ig_blurred: float = 0.9) -> list[dict[str, Any]]:
    about = {"status": "ok", "sign": "relu"}
    return [
        about | {"method": "random", "auc": random},
        about | {"method": "ig", "auc": ig, "auc_blur": ig_blurred},
    ]


def history(*psnr: float, every: int = 500) -> list[dict[str, Any]]:
    return [{"step": every * (i + 1), "psnr_db": value} for i, value in enumerate(psnr)]


@pytest.mark.parametrize(
    ("given", "found", "numbers", "pair", "expected"),
    [
        (history(25, 30, 30.1), rows(0.95), {}, None, []),
        (history(30, every=240), rows(0.95), {}, None, ["more minutes: 240 steps are few"]),
        (history(25, 28, 30), rows(0.95), {}, None, ["more minutes: x-hat still gained 2.0 dB"]),
        (
            history(15, 15, every=600),
            rows(0.95),
            {"psnr_db": 15.0},
            None,
            ["more minutes: x-hat has 15.0 dB"],
        ),
        (history(30, 30, 30), rows(0.51), {}, None, ["this network follows patterns too faint"]),
        (
            history(30, 30, 30),
            rows(0.95, 0.3, 0.8),
            {},
            None,
            ["this network follows patterns too faint to see: what Integrated Gradients finds"],
        ),
        (
            history(30, 30, 30),
            rows(0.95),
            {},
            ("cat", "lynx", 0.3),
            ["two classes look alike: the network takes cat and lynx"],
        ),
        (history(30, 30, 30), rows(0.95), {"auc": 0.9}, None, ["more minutes, or a network"]),
        (history(30, 30, 30), rows(0.95), {"neutral_share": 0.2}, None, ["more minutes: on 80%"]),
    ],
)
def test_what_to_change(
    given: list[dict[str, Any]],
    found: list[dict[str, Any]],
    numbers: dict[str, Any],
    pair: tuple[str, str, float] | None,
    expected: list[str],
) -> None:
    advice = list(_advice(found, GOOD | numbers, given, pair, 0.85))
    assert len(advice) == len(expected)
    assert all(line.startswith(start) for line, start in zip(advice, expected, strict=True))
    assert str(Verdict({}, [], advice)).count("to change") == len(expected)


def test_the_gain_is_that_of_the_last_third() -> None:
    assert _late_gain(history(10, 20, 21, 22, 23, 24)) == 2
    assert _late_gain([]) == 0
