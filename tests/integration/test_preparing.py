"""The stage `prepare` at 5,000 patches of the paper's size; benchmarks/ has the larger ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.preparing import measure

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_killed_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    found = measure(tmp_path, 5000, kill=True)
    assert (found["lost"], found["doubled"]) == (0, 0)
    assert found["kept"] >= 2  # shards that the killed run had finished are its successor's
    assert found["peak_mb"] < 1500


def test_it_streams_at_nearly_the_cost_of_the_codec(tmp_path: Path) -> None:
    """Processor time is compared, since other programs would distort elapsed time."""
    found = measure(tmp_path, 2500)
    assert found["ratio_of_work"] <= 1.5
    assert (found["lost"], found["doubled"]) == (0, 0)
