"""The launcher's output and refusals, without servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from dxai.config.settings import ParamsError
from infra import local

ROOT = Path(__file__).resolve().parents[3]


def record(message: str, level: int = 20) -> dict[str, object]:
    return {"timestamp": "2026-01-01T10:00:00+00:00", "message": message, "level": level}


def test_progress_is_shown_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    local.show(record("decompose [##  ] 2/4 steps, 1.00/s, 0:02 left\n"))
    assert capsys.readouterr().out.endswith(
        ":00:00 | decompose [##  ] 2/4 steps, 1.00/s, 0:02 left\n"
    )


def test_routine_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    local.show(record("Finished in state Completed()"))
    local.show(record("Data and pipelines are up to date."))
    assert capsys.readouterr().out == ""


def test_of_an_error_only_its_message_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    local.show(
        record("Task run failed: StageFailed('x')\nTraceback (most recent call last):\n", 40)
    )
    assert capsys.readouterr().out.endswith("| Task run failed: StageFailed('x')\n")


def test_a_profile_is_checked_at_once() -> None:
    assert local.flow_parameters(None) == {}
    assert local.flow_parameters("smoke") == {"profile": "smoke"}
    with pytest.raises(ParamsError, match=r"tiny.*quick.*smoke"):
        local.flow_parameters("tiny")


def test_status_and_down_where_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.yaml").touch()
    assert local.main(["status"]) == 0
    assert capsys.readouterr().out.split() == [
        *("prefect:", "stopped", "mlflow:", "stopped", "worker:", "stopped")
    ]
    assert local.main(["down"]) == 0


def test_another_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        local.main(["up"])
    assert "run in the project's folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
