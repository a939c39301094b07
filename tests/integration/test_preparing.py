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


def test_it_streams_at_nearly_the_speed_of_the_codec(tmp_path: Path) -> None:
    """Of two runs the quicker: other work on the machine slows the two sides unevenly."""
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs.append(measure(tmp_path / name, 5000))
    assert max(run["peak_mb"] for run in runs) < 1500
    assert min(run["ratio_after_start"] for run in runs) <= 1.5
    assert all((run["lost"], run["doubled"]) == (0, 0) for run in runs)
