"""What the soak test kills, and how it compares results; `make soak` runs it."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest

from dxai.utils.files import write_json
from tests.soak.plan import evenly, next_of
from tests.soak.results import differing, digests, forget


@pytest.mark.parametrize("count", [0, 3, 20])
def test_every_victim_comes_as_often_as_the_others(count: int) -> None:
    victims = "abcdefg"
    plan = evenly(victims, count, random.Random(1))
    assert len(plan) == count
    often = [plan.count(victim) for victim in victims]
    assert max(often) - min(often) <= 1
    assert plan == evenly(victims, count, random.Random(1))
    assert plan != evenly(victims, count, random.Random(2)) or count < 4


def test_the_next_victim_is_the_first_that_is_there() -> None:
    assert next_of(["a", "b", "c", "b"], {"b", "c"}) == 1
    assert next_of(["a"], {"b"}) is None
    assert next_of([], {"b"}) is None


def outputs(root: Path, seconds: float, loss: float) -> None:
    folder = root / "artifacts/classifiers/x"
    write_json(folder / "metrics.json", {"loss": loss, "parts": [{"seconds": seconds}]})
    (folder / "model.pt").write_bytes(b"weights")
    with (folder / "history.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["step", "seconds", "loss"], [1, seconds, loss]])
    (root / "results").mkdir()
    (root / "results/report.html").write_text(f"took {seconds} s")


def test_results_are_compared_without_the_time_that_they_took(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("one", "slower", "other")]
    for root, seconds, loss in zip(roots, (1.0, 2.0, 1.0), (0.5, 0.5, 0.75), strict=True):
        outputs(root, seconds, loss)
    one, slower, other = map(digests, roots)
    assert len(one) == 4
    assert differing(slower, one) == []
    names = [f"artifacts/classifiers/x/{name}" for name in ("history.csv", "metrics.json")]
    assert differing(other, one) == names
    (roots[1] / "results/report.html").unlink()
    assert differing(digests(roots[1]), one) == ["results/report.html"]
    forget(roots[1])
    assert digests(roots[1]) == {}
