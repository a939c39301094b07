from __future__ import annotations

import itertools

import pytest

from dxai.config.schema import DecomposeParams
from dxai.training.pace import PANELS, ROWS, BySteps, ByTime, Due

NOTHING, ALL = Due(False, False, False, False), Due(True, True, True, True)


def test_by_steps_everything_is_due_as_the_settings_say() -> None:
    pace = BySteps(DecomposeParams(steps=9, log_every=2, panel_every=3, checkpoint_every=4))
    assert list(pace.ahead(7, 0.0)) == [7, 8]
    found = [pace.due(done, 0.0) for done in range(1, 10)]
    assert found[0] == NOTHING and found[-1] == ALL
    assert [k + 1 for k, due in enumerate(found) if due.row] == [2, 4, 6, 8, 9]
    assert [k + 1 for k, due in enumerate(found) if due.panel] == [3, 6, 9]
    assert [k + 1 for k, due in enumerate(found) if due.checkpoint] == [4, 8, 9]


def run(pace: ByTime, done: int, seconds: float, each: float) -> list[tuple[int, float, Due]]:
    """Take steps of `each` seconds until the last."""
    found = []
    for step in pace.ahead(done, seconds):
        seconds += each
        found.append((step + 1, seconds, pace.due(step + 1, seconds)))
        if found[-1][-1].last:
            return found
    raise AssertionError("no end")


@pytest.mark.parametrize("each", [0.1, 1.0, 7.0])
def test_by_time_the_last_step_ends_in_time(each: float) -> None:
    found = run(ByTime(300.0, 20), 0, 0.0, each)
    done, seconds, last = found[-1]
    assert 300.0 - 1.1 * each < seconds <= 300.0 and last == ALL
    rows, panels, saves = (sum(due[k] for *_, due in found) for k in range(3))
    assert rows == pytest.approx(min(ROWS, done), abs=1)
    assert panels == pytest.approx(PANELS, abs=1) and saves == pytest.approx(5, abs=1)


def test_some_steps_are_taken_in_any_case_and_an_interrupted_time_goes_on() -> None:
    assert run(ByTime(1.0, 20), 0, 0.0, 5.0)[-1][:2] == (20, 100.0)
    assert run(ByTime(300.0, 20), 100, 299.5, 5.0)[-1][:2] == (101, 304.5)
    assert run(ByTime(300.0, 20), 100, 250.0, 5.0)[-1][:2] == (110, 300.0)


def test_what_is_foreseen_is_what_the_mean_speed_reaches() -> None:
    pace = ByTime(100.0, 20)
    steps = itertools.islice(pace.ahead(0, 0.0), 10)
    for step in steps:
        pace.due(step + 1, step + 1.0)
    assert pace.total(10, 10.0) == 100
    assert pace.total(10, 50.0) == 20  # slower by now
    assert BySteps(DecomposeParams(steps=9)).total(3, 1e6) == 9
