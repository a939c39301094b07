"""`make up`, `prefect deployment run` and `make benchmark` with the real stages of `smoke`."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import pandas as pd
import pytest

from dxai.config.params_file import load_params
from dxai.config.schema import METHODS, Params
from flows.dvc_runner import graph
from infra.prefect_api import ApiError
from tests.integration.conftest import HOOK_SECRET, Project, wait_for
from tests.repository import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LONG = {"decompose.steps": "100000", "decompose.checkpoint_every": "10"}
"""Hours of training, where `smoke` takes seconds."""


def artifacts(project: Project) -> dict[str, Any]:
    found = project.api.call("artifacts/latest/filter", {})
    return {artifact["key"]: artifact for artifact in found}


def table(project: Project) -> list[dict[str, str]]:
    with (project.root / "results/tables/table1.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def runs(project: Project) -> Any:
    """Return every MLflow run, the newest first."""
    mlflow.set_tracking_uri(f"sqlite:///{project.root}/.work/mlflow.db")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # not for the programs that are started later
    return mlflow.search_runs(experiment_names=["dxai"])


# ------------------------------------------------------------------------------------ it works
def test_the_table_is_an_artifact_and_the_report_is_linked(finished: Project) -> None:
    found = artifacts(finished)
    rows = re.findall(r'"method": "(\w+)"', str(found["table-1"]["data"]).replace("'", '"'))
    assert rows == [row["method"] for row in table(finished)]
    assert (finished.root / "results/report.html").as_uri() in found["report"]["data"]


def test_every_item_of_dvc_is_a_task_after_those_that_it_needs(finished: Project) -> None:
    needs = graph(finished.root)

    def recorded() -> list[dict[str, Any]]:  # by events, so a little later
        body = {"sort": "EXPECTED_START_TIME_ASC"}
        found = [
            finished.api.call("task_runs/filter", body | {"offset": offset})
            for offset in (0, 200, 400)
        ]
        return [task for page in found for task in page]

    def all_there() -> bool:
        found = [task["name"] for task in recorded()]
        steps = ("publish", "track", "judge")
        return needs.keys() <= set(found) and all(
            any(re.fullmatch(rf"{step}-[0-9a-f]{{3,}}", name) for name in found) for step in steps
        )

    wait_for(all_there, 60)
    tasks = recorded()
    names = {task["id"]: task["name"] for task in tasks}
    first = {task["name"]: task for task in reversed(tasks)}
    for target, needed in needs.items():
        before = first[target]["task_inputs"].get("wait_for", [])
        assert {names[task["id"]] for task in before} == set(needed), target


def test_a_bar_says_how_far_an_item_is(finished: Project) -> None:
    bars = {key for key in artifacts(finished) if key.startswith("progress-")}
    assert any(key.startswith("progress-decompose-textures-simple-0") for key in bars)
    data = artifacts(finished)["progress-decompose-textures-simple-0"]["data"]
    assert float(data) == 100


def test_the_webhook_is_told_and_nobody_else_knows_it(finished: Project) -> None:
    told = next(entry for entry in finished.told if entry["table1"])
    assert told["state"] == "Completed"
    assert [row["method"] for row in told["table1"]] == [row["method"] for row in table(finished)]
    assert finished.api.url.removesuffix("/api") in told["url"]
    written = [finished.root / ".work", finished.root / "results", finished.root / "params.yaml"]
    found = subprocess.run(
        ["grep", "-rlF", HOOK_SECRET, *map(str, written)], capture_output=True, text=True
    )
    assert found.stdout == ""


def test_one_table_alone_runs_what_it_needs(finished: Project) -> None:
    """A profile is taken whole, in the run's workspace."""
    params = finished.root / "params.yaml"
    before = params.read_text()
    done = finished.deployment_run("profile=smoke", deployment="table-5")
    assert params.read_text() == before
    assert done.returncode == 0, done.stdout
    run = finished.flow_runs()[0]
    log = finished.log(run["id"])
    added = set(re.findall(r"params.yaml: methods\.(\w+): added", log))
    assert added | set(load_params(params).methods) == set(METHODS)
    items = list(graph(finished.root, ["prepare"]))
    assert f"{len(items)} items, up to" in log
    assert finished.api.has_artifact(run["id"], "table-5")
    assert not finished.api.has_artifact(run["id"], "table-1")
    (record,) = (finished.root / ".work/runs").glob(f"*-{run['id'][:8]}")
    assert {path.name for path in record.iterdir()} == {"run.json", "params.yaml", "dvc.lock"}


def test_the_run_is_in_mlflow(finished: Project) -> None:
    frame = runs(finished)
    parent = frame[frame["tags.kind"] == "benchmark"].iloc[-1]
    children = frame[frame["tags.mlflow.parentRunId"] == parent["run_id"]]
    assert set(frame["status"]) == {"FINISHED"}
    params = load_params(finished.root / "params.yaml")
    assert dict(children["tags.kind"].value_counts()) == {
        "classifier": 2 * len(params.classifiers) + len(params.joint),
        "decomposition": len([s for name in params.explained for s in params.seeds_of(name)])
        + len(params.ablations.variants),
        "method": len(table(finished)),
        "ablation": len(params.ablations.variants),
        "cross": len(params.classifiers) * len(seeds_of_frozen(params)),
        "stability": len(params.repeat.classifiers),
    }
    for row in table(finished):
        named = ("classifier", "method", "sign", "seed")
        same = pd.concat([children[f"tags.{name}"] == row[name] for name in named], axis=1)
        (auc,) = children[same.all(axis=1)]["metrics.auc"]
        assert auc == pytest.approx(float(row["auc"] or "nan"), rel=1e-4, nan_ok=True)
    assert parent["tags.git_commit"] == git(finished.root, "rev-parse", "HEAD").strip()
    # Each links to the other.
    link = rf"#/experiments/\d+/runs/{parent['run_id']}"
    assert re.search(link, artifacts(finished)["mlflow"]["data"])
    run = parent["tags.prefect.flow_run"]
    assert parent["tags.prefect.url"].endswith(f"/runs/flow-run/{run}")
    assert run in parent["tags.mlflow.note.content"]


def seeds_of_frozen(params: Params) -> list[int]:
    return [seed for name in params.classifiers for seed in params.seeds_of(name)]


def test_dvc_changed_no_ignore_file(finished: Project) -> None:
    assert git(finished.root, "status", "--porcelain").split() == ["M", "params.yaml"]


def test_nothing_but_loopback_was_contacted(finished: Project) -> None:
    text = finished.audit.read_text()
    assert "127.0.0.1" in text  # the hook worked
    local = re.compile(r"'(127\.0\.0\.1|localhost|::1|0\.0\.0\.0|)'|\('?/|^socket.connect '|None")
    foreign = {line for line in text.splitlines() if not local.search(line)}
    assert not foreign


def test_again_by_make_benchmark_everything_is_skipped(finished: Project) -> None:
    before = runs(finished)
    done = finished.local("benchmark")
    assert done.returncode == 0, done.stdout
    assert "Running stage" not in done.stdout
    items = graph(finished.root)
    assert finished.flow_runs()[0]["total_run_time"] < 60 * max(1, len(items) / 100)
    for target in items:
        assert f"Stage '{target}' didn't change, skipping" in done.stdout
    assert "dxai" in done.stdout.split("method ")[1]  # Table 1
    assert str(finished.root / "results/report.html") in done.stdout
    status = finished.local("status").stdout
    assert status.count("running, process") == 3  # what ran before still does
    after = runs(finished)
    assert len(after) == 2 * len(before)
    models = after["tags.model_of_run"].dropna()
    assert len(models) == 2 * models.nunique() > 0  # the second run points to the first's models


def test_the_gate_refuses_what_got_worse(finished: Project) -> None:
    """The run before is changed to look far better than it was."""
    frame = runs(finished)
    parents = frame[frame["tags.kind"] == "benchmark"]
    path = Path(unquote(urlsplit(parents.iloc[0]["artifact_uri"]).path), "table1.json")
    logged = path.read_text()
    content = json.loads(logged)
    named = ("dataset", "classifier", "method")
    columns = [content["columns"].index(name) for name in (*named, "auc", "auc_low", "auc_high")]
    better = [columns[3:], (0.1, 0.09, 0.11)]
    for row in content["data"]:
        if [row[i] for i in columns[:3]] == ["textures", "simple", "dxai"]:
            for column, value in zip(*better, strict=True):
                row[column] = value
    path.write_text(json.dumps(content))
    try:
        done = finished.deployment_run("gate=true")
    finally:
        path.write_text(logged)
    assert done.returncode == 1
    state = finished.flow_runs()[0]["state"]
    assert "beyond the noise: auc/textures/simple/dxai" in state["message"]
    assert "auc/textures/simple/dxai" in artifacts(finished)["changes"]["data"]
    last = runs(finished)
    last = last[last["tags.kind"] == "benchmark"].iloc[0]
    assert (last["status"], last["tags.gate"]) == ("FINISHED", "refused")
    wait_for(lambda: finished.told[-1]["state"] == "Failed")


def test_dvc_by_hand_finds_all_up_to_date(finished: Project) -> None:
    done = finished.run("dvc", "repro")
    assert "Stage 'tables' is cached - skipping run" in done.stdout
    assert "Running" not in done.stdout
    assert "up to date" in finished.run("dvc", "repro").stdout


# ------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"methods": ["occlusion"]}, "occlusion"),
        ({"methods": []}, "methods"),
        ({"seeds": [-1]}, "-1"),
        ({"seeds": ["x"]}, "seeds"),
        ({"datasets": [1]}, "datasets"),
        ({"profile": "../smoke"}, "smoke"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(
    finished: Project, parameters: dict[str, Any], said: str
) -> None:
    before = len(finished.flow_runs())
    with pytest.raises(ApiError, match=said):
        finished.api.run("dxai/full-benchmark", parameters)
    assert len(finished.flow_runs()) == before


@pytest.mark.parametrize("parameter", ['methods=["occlusion"]', "profil=smoke"])
def test_a_wrong_parameter_on_the_command_line_is_refused(
    finished: Project, parameter: str
) -> None:
    before = len(finished.flow_runs())
    done = finished.deployment_run(parameter)
    assert done.returncode == 1
    assert re.search("occlusion|profil", done.stdout)
    assert len(finished.flow_runs()) == before


def test_an_unknown_name_fails_the_run_naming_the_valid_ones(finished: Project) -> None:
    params = (finished.root / "params.yaml").read_text()
    assert finished.deployment_run('datasets=["nowhere"]').returncode == 1
    state = finished.flow_runs()[0]["state"]
    assert state["type"] == "FAILED"
    assert re.search("nowhere.*textures", state["message"])
    assert (finished.root / "params.yaml").read_text() == params


def test_an_unknown_profile_starts_nothing(make_project: Callable[..., Project]) -> None:
    project = make_project()
    done = project.local("benchmark", "--profile", "tiny")
    assert done.returncode == 1
    assert "tiny" in done.stdout
    assert "smoke" in done.stdout
    assert not (project.root / ".work/logs").exists()


def test_a_taken_port_is_named(make_project: Callable[..., Project]) -> None:
    project = make_project()
    with socket.create_server(("127.0.0.1", int(project.environment["DXAI_PREFECT_PORT"]))):
        done = project.local("up")
    assert done.returncode == 1
    assert "DXAI_PREFECT_PORT" in done.stdout
    assert not project.processes()


# ------------------------------------------------------------------------------------ it fails
def test_a_failed_stage_fails_the_run_and_the_next_run_resumes(finished: Project) -> None:
    project = finished
    before = (project.root / "params.yaml").read_text()
    weights = project.root / "broken.pt"
    weights.write_text("no weights")
    project.select(overrides={"classifiers.simple.weights": weights.name})
    try:
        done = project.deployment_run()
        run = project.flow_runs()[0]
        assert done.returncode == 1
        assert run["state"]["type"] == "FAILED"
        assert re.search(
            r"stage classifier@textures-simple-\w+ failed: error: ", run["state"]["message"]
        )
        assert "broken.pt" in run["state"]["message"]
        log = project.log(run["id"])
        # Its input is wrong: no second try, and whatever ran beside it was ended.
        assert log.count("Running stage 'classifier@textures-simple-explained'") == 1
        assert "Stage 'prepare@textures-few' didn't change" in log.replace(
            "textures'", "textures-few'"
        )
        assert "Running stage 'decompose@" not in log
    finally:
        (project.root / "params.yaml").write_text(before)
        weights.unlink()
        # DVC keeps what an item made that is no longer there. Without it, what was trained before
        # is found in DVC's cache instead of being trained again, with all that depends on it.
        (project.root / "artifacts/networks/simple/broken.pt.json").unlink(missing_ok=True)
    done = project.deployment_run("gate=true", "verify=true")  # after one that the gate refused
    assert done.returncode == 0, done.stdout
    assert "RUNNING" not in set(runs(project)["status"])


@pytest.fixture(scope="module")
def busy(make_project: Callable[..., Project], finished: Project) -> Project:
    """Copy the finished project, with a decomposition that would train for hours.

    The tests come in an order: each run goes on with the training that the one before left.
    """
    project = make_project(finished)
    project.narrow(profile="smoke", classifiers=["simple"], methods=["ig"], overrides=LONG)
    return project


@contextlib.contextmanager
def at_work(project: Project) -> Iterator[subprocess.Popen[str]]:
    """Start `make benchmark`, and wait until it has saved a checkpoint of a decomposition."""
    began = time.time()
    process = project.start("infra.local", "benchmark")

    def trains() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return any(mtime(path) > began for path in checkpoints(project))

    wait_for(trains, 180)
    try:
        yield process
    finally:
        process.kill()


def checkpoints(project: Project) -> list[Path]:
    """Return the files of the decomposition's training."""
    return list((project.root / ".work/checkpoints").glob("decompose*/*"))


def mtime(path: Path) -> float:
    """Return the time at which a file was written, 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def continued(project: Project) -> int:
    """Count the resumed trainings in the worker's log."""
    log = project.root / ".work/logs/worker.log"
    return log.read_text(errors="replace").count("continuing from step") if log.exists() else 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_everything_and_the_next_run_goes_on(busy: Project, signum: int) -> None:
    before, count = checkpoints(busy), continued(busy)
    with at_work(busy) as process:
        if signum == signal.SIGINT:
            second = busy.local("benchmark")
            assert second.returncode == 1
            assert f"process {process.pid}" in second.stdout
        began = time.monotonic()
        process.send_signal(signum)
        output, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 45
    assert process.returncode == 128 + signum, output
    assert "Cancelled" in output
    assert not busy.processes()
    # What was trained is kept, and the locks are free.
    assert checkpoints(busy)
    assert (continued(busy) > count) == bool(before)


def running(project: Project, program: str) -> list[int]:
    return [pid for pid, command in project.processes().items() if program in command]


@contextlib.contextmanager
def by_hand(project: Project) -> Iterator[Callable[[str], None]]:
    """Let `dvc repro` come to the decomposition; yields a function that waits until it says so."""
    with project.start("dvc", "repro", "decompose@textures-simple-0") as process:
        stdout, seen = process.stdout, ""
        assert stdout is not None

        def says(text: str) -> None:
            nonlocal seen
            while text not in seen:
                line = stdout.readline()
                assert line, seen
                seen += line

        yield says
        says("continuing from step")  # what the run's process, which has ended, has trained
        for stage in running(project, "dxai.stages.decompose"):
            os.kill(stage, signal.SIGINT)
        assert process.wait(60) != 0


@pytest.mark.parametrize("victim", ["prefect.engine", "prefect worker start"])
def test_what_is_killed_is_reported_and_leaves_nothing(busy: Project, victim: str) -> None:
    before, count = checkpoints(busy), continued(busy)
    changed = git(busy.root, "status", "--porcelain")
    with contextlib.ExitStack() as side_by_side, at_work(busy) as process:
        if victim == "prefect.engine":  # another run goes side by side, and so does git
            other = busy.api.run("dxai/table-5", {"seeds": [5]})["id"]
            wait_for(lambda: busy.api.state(other)["type"] == "COMPLETED", 120)
            assert process.poll() is None
            assert git(busy.root, "status", "--porcelain") == changed
            says = side_by_side.enter_context(by_hand(busy))
            says("waiting until another process has done the same")  # and does no harm
        wait_for(lambda: len(running(busy, victim)) == 1)  # the other one's process ends, too
        (pid,) = running(busy, victim)
        os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "Crashed" in output
    assert (continued(busy) > count) == bool(before)
    wait_for(lambda: not busy.processes())


def test_make_down_ends_a_run_too(busy: Project) -> None:
    with at_work(busy) as process:
        assert busy.local("down").returncode == 0
        # A stage ends at the next line that it cannot print.
        wait_for(lambda: not busy.processes().keys() - {process.pid}, 20)
        process.communicate(timeout=60)
    assert process.returncode == 1


def test_after_a_power_cut_the_next_run_starts_at_once(busy: Project) -> None:
    with at_work(busy) as process:
        process.kill()
        process.communicate()
        while found := busy.processes():
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
    busy.select(overrides={"decompose.steps": "20"})
    done = busy.local("benchmark")
    assert done.returncode == 0, done.stdout
    assert "its worker is gone" in done.stdout
    assert not busy.processes()
