"""How the flow handles the lines of a stage."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # Prefect takes seconds to import


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Import the flow; Prefect makes its folder at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        yield importlib.import_module("flows.benchmark")


@pytest.mark.parametrize("failing", ["create_progress_artifact", "update_progress_artifact"])
def test_progress_that_cannot_be_shown_does_not_end_a_stage(
    failing: str,
    benchmark: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def answers(name: str) -> Callable[..., str]:
        def answer(*_: object, **__: object) -> str:
            if name == failing:
                raise ConnectionError("500 Internal Server Error")
            return "id"

        return answer

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(benchmark, "runtime", SimpleNamespace(task_run=SimpleNamespace(name="s")))
    monkeypatch.setattr(benchmark, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(benchmark, "PROGRESS_SECONDS", 0.0)
    for name in ("create_progress_artifact", "update_progress_artifact"):
        monkeypatch.setattr(benchmark, name, answers(name))
    lines = [f"train [####    ] {done}/4 steps, 1/s" for done in (1, 2)]
    benchmark.run_item.fn(lambda: iter([*lines, "the end"]))
    assert "progress is not shown: 500 Internal Server Error" in caplog.messages
    assert caplog.messages[-1] == "the end"
