"""The launcher's output and refusals, without servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dxai.config.settings import ParamsError
from infra import local
from infra.supervisor import ServiceError, Stack

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


@pytest.mark.parametrize("cluster", [False, True])
def test_the_page_is_that_of_the_store_which_has_the_run(
    cluster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster does not log to a store that the shell names; one user's services do."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@mlflow.example")
    stack = Stack(tmp_path, cluster)
    said = local.page_of(stack, local.store_of_worker(stack))
    if cluster:
        assert said == f"make up, then {stack.url('mlflow')} (data: {stack.url('mlflow')})"
    else:
        assert "mlflow.example" in said and "s3cret" not in said
    own = local.page_of(stack, stack.local_store)  # of a worker that ran already
    assert own == f"make up, then {stack.url('mlflow')} (data: {stack.local_store})"


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


def test_a_folder_that_git_does_not_know_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.yaml").touch()
    for command in ("up", "benchmark"):
        assert local.main([command]) == 1
        said = capsys.readouterr().err
        assert f"error: {tmp_path} is no git repository" in said and "git init" in said
        assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["prefect.yaml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_belongs_to_another_user_is_a_warning_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("SUDO_UID", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    os.chown(tmp_path, 65534, 65534)
    local.check_folder(tmp_path)
    said = capsys.readouterr().out
    assert "runs do not record their commit" in said
    assert f"git config --global --add safe.directory {tmp_path}" in said


def test_an_environment_with_a_percent_sign_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/me/a%20b/.venv")
    with pytest.raises(ServiceError, match=r"a%20b/\.venv; make the environment"):
        local.check_folder(tmp_path)


READER = """
import sys
from infra import local, supervisor
started = []
local.service_definitions.find_stack = lambda root, cluster: None
local.check_folder = lambda root: None
def run(stack, parameters):
    try:
        while True:
            local.echo("a line")
    finally:
        local.clean_up()
        local.echo("stopping")
        with open(sys.argv[1], "w") as file:
            print("stopped", file=file)
local.benchmark, local.supervisor.exclusive = run, lambda *_: local.contextlib.nullcontext()
sys.exit(local.main(["benchmark"]))
"""


def test_without_a_reader_it_cleans_up_and_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path / "stopped")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE
    assert (tmp_path / "stopped").read_text() == "stopped\n"


def test_another_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        local.main(["up"])
    assert "run in the project's folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
