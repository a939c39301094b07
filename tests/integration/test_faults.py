"""Killing each process of a cluster during a training loses nothing and repeats nothing.

One training outlives them all: runs that a kill ends are followed by others, which go on.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.faults import Cluster
from tests.integration.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS, ROW = 1600, 25
"""Under two minutes on a quiet core; the last kill comes at step 650 there, 1200 on busy ones."""
DECOMPOSE = "decompose@textures-simple-0"


@pytest.fixture(scope="module")
def faulty(cluster: Project) -> Cluster:
    overrides = {
        "ablations.variants": "{}",
        "repeat": "{classifiers: [], seeds: []}",
        "decompose.steps": str(STEPS),
        "decompose.log_every": str(ROW),
        "decompose.checkpoint_every": str(2 * ROW),
        "decompose.panel_every": str(STEPS),
        "decompose.discriminator_width": "32",
        "training.executor": "ray",
        "training.storage": "s3://dxai/checkpoints",
    }
    cluster.select(profile="smoke", classifiers=["simple"], methods=["ig"], overrides=overrides)
    return Cluster(cluster)


def test_each_process_is_killed_while_a_run_trains(faulty: Cluster) -> None:
    first = faulty.run()
    faulty.trains_again(1)
    for names in (("mlflow", "prefect"), ("postgres",), ("store",)):  # the run goes on
        for name in names:
            faulty.kill(name)
        if names != ("store",):  # training never waits for who only keeps the books
            faulty.trains_on(f"the kill of {names}")
        said = faulty.up()
        for name in names:
            assert name == "postgres" or f"{name}: ready" in said or "is up" in said
        faulty.trains_on(f"the restart of {names}")
    faulty.kill("ray-node")
    faulty.trains_on("the kill of ray-node")
    faulty.up()
    starts = len(faulty.events("start"))
    assert faulty.project.api.state(first)["type"] == "RUNNING"

    faulty.kill("ray-head")  # with it goes the training
    state = faulty.ends(first)
    assert state["type"] == "FAILED"
    assert "RAY_ADDRESS" in state["message"] or "started" in state["message"]
    step = faulty.step()
    faulty.up()
    faulty.run()
    faulty.trains_again(starts + 1)
    assert faulty.events("start")[-1]["step"] > step - 4 * ROW  # from the last checkpoint

    faulty.kill_process("prefect worker start")  # another one ends what it left
    assert faulty.ends(faulty.runs[-1])["type"] == "CRASHED"

    third = faulty.run()
    faulty.trains_again(starts + 2)
    faulty.kill_process("prefect.engine")
    assert faulty.ends(third)["type"] == "CRASHED"
    assert faulty.step() < STEPS, "too few steps for this machine"

    assert faulty.ends(faulty.run())["type"] == "COMPLETED", faulty.said()


def test_no_finished_stage_was_repeated(faulty: Cluster) -> None:
    ran = faulty.ran()
    assert ran.pop(DECOMPOSE) >= len(faulty.runs) == 4  # it tries twice, and goes on:
    found = re.findall(
        "decompose textures simple 0: continuing from step (\\d+)",
        faulty.stack.log("worker").read_text(errors="replace"),
    )
    steps = [int(step) for step in found]
    assert len(steps) >= 3
    assert steps == sorted(steps)
    assert steps[0] > 0
    assert ran
    assert set(ran.values()) == {1}, ran


def test_what_is_recorded_as_done_is_done(faulty: Cluster) -> None:
    root = faulty.project.root
    by_hand = faulty.project.run("dvc", "repro")  # it finds what the runs computed
    assert "Running stage" not in by_hand.stdout, by_hand.stdout
    lock = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    assert {DECOMPOSE, "report"} <= {name.partition(":")[2] or name for name in lock}
    for stage in lock.values():
        for out in stage["outs"]:
            path = root / out["path"]
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            found = [
                {"md5": _md5(file), "relpath": file.relative_to(path).as_posix()} for file in files
            ]
            known = found[0]["md5"] if path.is_file() else _md5_of_folder(found)
            assert known == out["md5"], out["path"]
    status = faulty.project.run("dvc", "status")
    assert "up to date" in status.stdout, status.stdout


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def _md5_of_folder(files: list[dict[str, str]]) -> str:
    """Return a folder's name in DVC's cache: a hash of its list of files."""
    listing = json.dumps(sorted(files, key=lambda file: file["relpath"]), sort_keys=True)
    return f"{hashlib.md5(listing.encode()).hexdigest()}.dir"


def test_mlflow_has_every_number_once_and_nothing_still_runs(faulty: Cluster) -> None:
    faulty.up()  # sends what was missed
    runs = faulty.in_mlflow()
    names = ("dxai", "dxai-training")
    states = {name: {r["status"] for r in runs if r["experiment"] == name} for name in names}
    # A run that ended early is there, too, and says so.
    assert {"FINISHED"} <= states["dxai"] <= {"FINISHED", "FAILED", "KILLED"}, runs
    assert states["dxai-training"] == {"FINISHED"}, runs
    (training,) = [
        run
        for run in runs
        if run["run"] == "decompose textures simple 0" and run["experiment"] == "dxai-training"
    ]
    expected = list(range(ROW, STEPS + 1, ROW))
    assert training["steps"]
    for name, steps in training["steps"].items():
        assert sorted(steps) == expected, name
    assert training["images"]


LEAVE = """
from pathlib import Path
from dxai.tracking.mlflow_store import open_store
with open_store(Path.cwd()) as store:
    mine = store.begin("mine", {})
    theirs = store.client.create_run(store.experiment, tags={"workspace": "theirs"}).info.run_id
with open_store(Path.cwd()) as store:
    print([store.client.get_run(run).info.status for run in (mine, theirs)])
    store.client.set_terminated(theirs)
"""


def test_what_a_killed_process_left_open_on_the_server_is_closed_and_no_more(
    faulty: Cluster,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVE],
        cwd=faulty.project.root,
        env=faulty.project.environment | faulty.stack.environment(),
        capture_output=True,
        text=True,
    )
    assert "['KILLED', 'RUNNING']" in done.stdout, done.stderr
