"""A running training's events in a real MLflow store."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from dxai.config.schema import TrainingParams
from dxai.paths import HERE, LIVE_LOCK, LIVE_STATE
from dxai.stages import training
from dxai.stages.training import logged_live
from dxai.tracking import live
from dxai.training.events import Console
from dxai.utils.files import locked
from tests.ray_jobs import children, command_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def in_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give_store: Callable[[Path], None]
) -> None:
    give_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def tell(console: Console, *steps: int) -> None:
    for step in steps:
        numbers = {"step": step, "seconds": step / 10, "loss/rec": 1 / step}
        console.emit("row", step=step, numbers=numbers)


def runs(root: Path) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{root / '.work/mlflow.db'}")
    experiment = client.get_experiment_by_name(live.EXPERIMENT)
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


def history(root: Path, run: mlflow.entities.Run, name: str) -> list[tuple[int, float]]:
    client = mlflow.MlflowClient(f"sqlite:///{root / '.work/mlflow.db'}")
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


def test_a_training_that_goes_on_goes_on_in_its_run(tmp_path: Path) -> None:
    folder = tmp_path / ".work/checkpoints/decompose-a-1234"
    console = Console("decompose a", folder)
    console.emit("start", step=0, total=40, images=8)
    tell(console, 10)
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, format="PNG")
    console.emit("panel", step=10, png=picture.getvalue())
    follower = live.Follower(folder)
    follower.catch_up()
    (run,) = runs(tmp_path)
    assert (run.info.run_name, run.info.status) == ("decompose a", "RUNNING")
    assert history(tmp_path, run, "loss/rec") == [(10, 0.1)]
    assert run.data.metrics["images_per_second"] == pytest.approx(80)
    tell(console, 20)
    follower.catch_up("KILLED")
    (run,) = runs(tmp_path)
    assert run.info.status == "KILLED"

    console.emit("start", step=20, total=40, images=8)  # a later process
    tell(console, 30)
    again = live.Follower(folder)
    again.catch_up()
    (run,) = runs(tmp_path)
    assert run.info.status == "RUNNING"
    tell(console, 40)
    again.catch_up("FINISHED")
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert history(tmp_path, run, "loss/rec") == [(s, 1 / s) for s in (10, 20, 30, 40)]
    images = mlflow.MlflowClient(f"sqlite:///{tmp_path / '.work/mlflow.db'}").list_artifacts(
        run.info.run_id, "images"
    )
    assert any("step+10" in image.path for image in images)


def test_steps_made_twice_are_logged_once(tmp_path: Path) -> None:
    console = Console("t", tmp_path / "t")
    console.emit("start", step=0, total=9, images=1)
    tell(console, 1, 2, 3)
    live.Follower(tmp_path / "t").catch_up()
    console.emit("start", step=1, total=9, images=1)  # went on from an earlier checkpoint
    tell(console, 2, 3, 4)
    live.Follower(tmp_path / "t").catch_up()
    tell(console, 5)
    live.Follower(tmp_path / "t").catch_up("FINISHED")
    steps = [step for step, _ in history(tmp_path, runs(tmp_path)[0], "loss/rec")]
    assert steps == [1, 2, 3, 4, 5]


def test_an_answer_that_is_lost_makes_no_second_run_and_no_second_number(tmp_path: Path) -> None:
    console = Console("t", tmp_path / "t")
    console.emit("start", step=0, total=9, images=1)
    tell(console, 1, 2)
    follower = live.Follower(tmp_path / "t")
    follower.catch_up()
    state = tmp_path / "t" / LIVE_STATE
    known = json.loads(state.read_text())
    # Killed before it could write down what MLflow had taken.
    state.write_text(json.dumps({"key": known["key"]}))
    live.Follower(tmp_path / "t").catch_up("FINISHED")
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(tmp_path, run, "loss/rec")] == [1, 2]


def outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a training whose start reached MLflow, but nothing after it."""
    folder = tmp_path / HERE.unfinished / "t"
    console = Console("t", folder)
    console.emit("start", step=0, total=9, images=1)
    tell(console, 1)
    live.Follower(folder).catch_up()
    with monkeypatch.context() as dead:
        dead.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with logged_live(folder, TrainingParams()):
            tell(console, 2)
            picture = io.BytesIO()
            Image.new("L", (8, 8)).save(picture, format="PNG")
            console.emit("panel", step=2, png=picture.getvalue())
    shutil.rmtree(folder)  # as the stage does with its unfinished work


def test_what_was_missed_arrives_once_with_the_next_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage(tmp_path, monkeypatch)
    assert runs(tmp_path)[0].info.status == "RUNNING"
    assert live.settle() == 1
    assert live.settle() == 0
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(tmp_path, run, "loss/rec")] == [1, 2]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / '.work/mlflow.db'}")
    assert client.list_artifacts(run.info.run_id, "images")
    assert not list((tmp_path / HERE.unsent).iterdir())


def test_a_run_whose_follower_was_killed_with_its_training_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / HERE.unfinished / "t"
    Console("t", folder).emit("start", step=0, total=9, images=1)
    tell(Console("t", folder), 1)
    with locked(folder / LIVE_LOCK) as alone:
        assert alone
        live.Follower(folder).catch_up()
        assert live.settle() == 0  # it is followed
        assert runs(tmp_path)[0].info.status == "RUNNING"
    assert live.settle() == 1
    assert runs(tmp_path)[0].info.status == "KILLED"
    tell(Console("t", folder), 2)
    live.Follower(folder).catch_up("FINISHED")  # it went on
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(tmp_path, run, "loss/rec")] == [1, 2]


def test_a_follower_that_is_killed_does_not_leave_its_run_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "END_SECONDS", 120.0)  # MLflow is slow to import
    folder = tmp_path / HERE.unfinished / "t"
    console = Console("t", folder)
    with logged_live(folder, TrainingParams()):
        console.emit("start", step=0, total=9, images=1)
        tell(console, 1)
        while not runs(tmp_path):
            time.sleep(0.1)
        (follower,) = [p for p in children(os.getpid()) if "dxai.tracking.live" in command_of(p)]
        os.kill(follower, signal.SIGKILL)
        tell(console, 2)
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(tmp_path, run, "loss/rec")] == [1, 2]


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    Console("t", tmp_path).emit("start", step=0, total=2, images=1)
    line = json.dumps({"kind": "row", "title": "t", "time": 1, "step": 1, "numbers": {"loss": 2}})
    events = tmp_path / "events.jsonl"
    with events.open("a") as file:
        file.write(line[:10])
    follower = live.Follower(tmp_path)
    follower.catch_up()
    with events.open("a") as file:
        file.write(line[10:] + "\n")
    follower.catch_up()
    assert history(tmp_path, runs(tmp_path)[0], "loss") == [(1, 2.0)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_the_process_ends_with_the_training_and_says_how_it_ended(
    tmp_path: Path, error: BaseException | None, status: str
) -> None:
    console = Console("t", tmp_path / "t")

    def train() -> None:
        with logged_live(tmp_path / "t", TrainingParams()):
            console.emit("start", step=0, total=2, images=1)
            tell(console, 1)
            if error is not None:
                raise error

    if error is None:
        train()
    else:
        with pytest.raises(type(error)):
            train()
    (run,) = runs(tmp_path)
    assert run.info.status == status
    assert history(tmp_path, run, "loss/rec") == [(1, 1.0)]


def test_a_training_in_process_is_too_short_to_follow(tmp_path: Path) -> None:
    with logged_live(tmp_path / "t", TrainingParams(executor="local")):
        Console("t", tmp_path / "t").emit("start", step=0, total=2, images=1)
    assert [path.name for path in (tmp_path / ".work").iterdir()] == ["mlflow.db"]


def test_a_dead_server_is_told_once_and_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    Console("t", tmp_path / "t").emit("start", step=0, total=2, images=1)
    process = subprocess.Popen(
        [sys.executable, "-m", "dxai.tracking.live", str(tmp_path / "t")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    _, told = process.communicate("FINISHED")
    assert time.monotonic() - began < 30
    assert process.returncode == 0
    assert told.count("MLflow accepts no live numbers") == 1
