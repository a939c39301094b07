"""The flow with trainings on Ray: one cluster, live numbers, stopping and resuming."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import mlflow
import pytest

from tests.integration.conftest import Project, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ON_RAY = {
    "training.executor": "ray",
    "training.cpus_per_worker": "1",
    "decompose.steps": "150",
    "decompose.checkpoint_every": "50",
    "decompose.panel_every": "25",
}


@pytest.fixture(scope="module")
def project(make_project: Callable[..., Project], finished: Project) -> Project:
    """Copy a finished `smoke` run, with both decompositions to be trained again, longer, on Ray."""
    project = make_project(finished)
    project.narrow(methods=["ig"], overrides=ON_RAY)
    return project


def ray_processes(project: Project) -> list[str]:
    return [command for command in project.processes().values() if "ray" in command]


def test_a_stop_saves_and_the_next_run_goes_on(project: Project) -> None:
    project.interrupt("panel of step 25", "infra.local", "benchmark")
    wait_for(lambda: not ray_processes(project), 20)

    run = project.local("benchmark")
    assert run.returncode == 0, run.stdout
    steps = [int(step) for step in re.findall(r"continuing from step (\d+)", run.stdout)]
    assert 1 <= len(steps) <= 2  # the other may not have made a step yet
    assert max(steps) >= 25 and all(0 < step < 150 for step in steps)
    assert run.stdout.count("starting on Ray") == 2
    assert re.search(r"\d+/150 steps, [\d.]+/s, [\d:]+ left, \d+ images/s, class ", run.stdout)
    wait_for(lambda: not ray_processes(project), 20)


def test_the_numbers_of_both_trainings_were_logged_live(project: Project) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{project.root}/.work/mlflow.db")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # not for the programs that are started later
    frame = mlflow.search_runs(experiment_names=["dxai-training"])
    assert set(frame["status"]) == {"FINISHED"}
    assert len(frame) == 2  # the one that was stopped went on in its own run
    assert set(frame["metrics.step"]) == {150}
    client = mlflow.MlflowClient()
    for run in frame["run_id"]:
        steps = [m.step for m in client.get_metric_history(run, "loss/rec")]
        assert steps == list(range(5, 151, 5))
