"""The stage `prepare` at 5,000 patches of the paper's size; benchmarks/ has the larger ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.preparing import measure, ratio_of_work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_killed_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    found = measure(tmp_path, 5000, kill=True)
    assert (found["lost"], found["doubled"]) == (0, 0)
    assert found["kept"] >= 2  # shards that the killed run had finished are its successor's
    assert found["peak_mb"] < 1500


def test_preparing_costs_little_more_than_the_codec(tmp_path: Path) -> None:
    """Processor time is compared, since other programs would distort elapsed time."""
    assert ratio_of_work(tmp_path) <= 1.5
