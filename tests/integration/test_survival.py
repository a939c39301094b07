"""Trainings that are killed, stopped and distributed, on a real Ray."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dxai.models.serialization import load_decomposer
from dxai.training.checkpoints import Checkpoint
from dxai.training.decomposition import DecompositionJob
from dxai.utils import shared_process
from tests import s3
from tests.integration.conftest import Project
from tests.prepared import prepared_textures
from tests.ray_jobs import (
    LOOPBACK,
    NAME,
    OPEN,
    SETTINGS,
    TRAINING,
    Training,
    add_node,
    cluster,
    command_of,
    digest,
    events_of,
    listening,
    session,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAST = SETTINGS.steps


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_textures(tmp_path_factory.mktemp("prepared"), image_size=16)


def job(data: Path, **settings: Any) -> DecompositionJob:
    return DecompositionJob(str(data), SETTINGS.replace(**settings), None, seed=0)


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """Start the plain loop in its own process; tests wait for it when they need its result."""
    local = TRAINING.replace(executor="local")
    training = Training(tmp_path_factory.mktemp("undisturbed"), job(data), local).start()
    yield training
    training.close()


@pytest.fixture
def train(data: Path, tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Return a function that starts trainings; none of their processes may be left at the end."""
    made: list[Training] = []

    def start(settings: dict[str, Any] | None = None, **training: Any) -> Training:
        variables = training.pop("variables", {})
        params = TRAINING.replace(**training)
        root = tmp_path / str(len(made))
        made.append(Training(root, job(data, **settings or {}), params, variables))
        return made[-1].start()

    yield start
    left = [training.leftovers() for training in made]
    for training in made:
        training.close()
    assert not any(left), left


def go_on(training: Training, count: int) -> None:
    """Wait until it has started for the `count`th time and made some steps since."""
    wait_for(lambda: training.starts() >= count, lambda: f"start {count}: {training.said()}")
    first = training.events("start")[-1]["step"]
    wait_for(lambda: training.step() > first + 2, lambda: f"steps after {first}: {training.said()}")


def kept(training: Training) -> set[int]:
    """Return the steps that have a checkpoint."""
    return {int(path.stem[5:]) for path in training.folder.glob("step-*.json")}


def test_a_training_survives_kills_of_everything_that_runs_it(
    undisturbed: Training, train: Callable[..., Training]
) -> None:
    training = train()
    kills: list[tuple[str, Callable[[], bool], str]] = [
        ("worker", lambda: training.step() > training.saved(), "a step after a checkpoint"),
        ("trainer", lambda: training.step() > training.saved(), "a step after a checkpoint"),
        ("worker", lambda: bool(training.half_written()), "the writing of a checkpoint"),
        ("raylet", lambda: training.step() > training.saved(), "a step after a checkpoint"),
    ]
    last = 0  # the checkpoint at the last kill
    for count, (kind, moment, what) in enumerate(kills, 1):
        go_on(training, count)
        wait_for(lambda n=last: training.saved() > n, "a checkpoint", pause=0.0005)
        worker = training.find("worker")
        training.kill_when(kind, moment, what, pause=0.0005)
        if kind == "raylet":  # its workers go on for some seconds, and might end the training
            assert worker is not None
            os.kill(worker, signal.SIGSTOP)
        saved, half = training.saved(), training.half_written()
        if "writing" in what:
            assert [int(path.name[6:15]) for path in half] == [saved + SETTINGS.checkpoint_every]
        # Ray gives a silent machine up only after its health checks, which a busy one delays.
        what = f"a start after the end of the {kind}"
        wait_for(lambda n=count: training.starts() > n, what, seconds=240)
        continued = training.continued()[-1]
        assert last < saved <= continued < LAST, training.said()
        assert continued == saved or kind == "trainer"  # the worker goes on for a moment
        last = saved
    # Whoever watches: what is left saves, ends by itself, and the next run goes on.
    go_on(training, len(kills) + 1)
    told = training.step()
    os.kill(training.pid, signal.SIGKILL)
    training.wait()
    wait_for(lambda: not training.leftovers(), "the end of all processes")
    last = training.saved()
    assert last >= told
    training.params = training.params.replace(executor="local")
    training.start()
    assert training.result() == undisturbed.result()
    assert training.continued()[-1] == last
    assert not training.half_written()
    scores = {row["step"]: row["numbers"]["psnr_db"] for row in undisturbed.events("row")}
    saved_at = range(SETTINGS.checkpoint_every, LAST + 1, SETTINGS.checkpoint_every)
    best = max(saved_at, key=lambda step: (scores[step], step))
    assert kept(training) == {LAST - SETTINGS.checkpoint_every, LAST, best}


@pytest.fixture
def moto() -> Iterator[s3.Server]:
    with s3.moto() as server:
        yield server


def test_a_kill_in_an_upload_and_the_loss_of_the_machines_disk(
    undisturbed: Training, train: Callable[..., Training], moto: s3.Server, tmp_path: Path
) -> None:
    bucket, cache = moto.bucket(), tmp_path / "cache"
    variables = s3.environment(moto.endpoint) | {"DXAI_CACHE": str(cache)}
    training = train(storage=f"s3://{bucket}/runs", variables=variables)

    def stored() -> set[str]:
        found = moto.client().list_objects_v2(Bucket=bucket, Prefix=f"runs/{NAME}/step-")
        return {Path(entry["Key"]).name for entry in found.get("Contents", [])}

    go_on(training, 1)
    for attempt in range(1, 6):
        before = max(training.saved(), SETTINGS.checkpoint_every)  # one is there already
        wait_for(lambda n=before: training.saved() > n, "a checkpoint", pause=0.0005)
        os.kill(moto.pid, signal.SIGSTOP)  # the upload cannot end
        time.sleep(0.5)
        step = training.saved()
        training.kill("worker")
        shutil.rmtree(training.folder)  # only what is on the object store is left
        os.kill(moto.pid, signal.SIGCONT)
        wait_for(lambda n=attempt: training.starts() > n, "a start after the kill")
        if training.continued()[-1] < step:  # else it had just been sent
            break
    assert training.continued()[-1] == step - SETTINGS.checkpoint_every
    assert training.result() == undisturbed.result()
    names = {f"step-{n:09d}{suffix}" for n in kept(training) for suffix in (".pt", ".json")}
    assert LAST in kept(training)
    assert names <= stored()


def test_a_worker_that_hangs_is_replaced_and_a_signal_saves_before_the_end(
    undisturbed: Training, train: Callable[..., Training]
) -> None:
    """Signals come when no checkpoint is due; the last two runs need no Ray to go on."""
    every = 40
    training = train({"checkpoint_every": every}, hang_seconds=5.0)
    wait_for(lambda: training.saved() == every, "a checkpoint")
    worker = training.find("worker")
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: training.starts() > 1, "a new start")
    assert "hangs: no event for 5 seconds" in training.said()
    assert training.continued() == [every]

    for count, (number, code) in enumerate([(signal.SIGTERM, 143), (signal.SIGINT, 130)], 2):
        go_on(training, count)
        told = training.step()
        os.kill(training.pid, number)
        assert training.wait() == code, training.said()
        assert training.saved() >= told > training.continued()[-1]
        assert not training.leftovers()
        training.params = training.params.replace(executor="local")
        last = training.saved()
        training.start()
        wait_for(lambda n=count: training.starts() > n, "a new start")
        assert training.continued()[-1] == last
    assert training.result() == undisturbed.result()


def test_trainings_that_do_not_fit_at_once_wait_for_each_other(
    train: Callable[..., Training], tmp_path: Path
) -> None:
    with shared_process.hold(tmp_path / "cluster"):
        shared: dict[str, Any] = {
            "variables": {"DXAI_CLUSTER": str(tmp_path / "cluster")},
            "cpus_per_worker": len(os.sched_getaffinity(0)),
        }
        first = train({"steps": 40}, **shared)
        go_on(first, 1)
        leader = int((tmp_path / "cluster" / shared_process.PID).read_text())
        assert listening(session(leader)) == LOOPBACK  # it is nobody else's
        # Kept from ending, however long the second one takes to say that it waits.
        worker = next(p for p in session(leader) if "RayTrainWorker" in command_of(p))
        os.kill(worker, signal.SIGSTOP)
        second = train({"steps": 40}, **shared)
        wait_for(lambda: "waiting" in second.said(), "waiting")
        assert not second.starts()
        os.kill(worker, signal.SIGCONT)
        assert first.result() == second.result()
        (begun,), ended = second.events("start"), first.events("row")[-1]
        assert begun["time"] >= ended["time"]
        assert ended["step"] == 40


# ------------------------------------------------------------------------------- several machines
def test_a_cluster_without_workers_is_given_the_time_to_grow(
    train: Callable[..., Training], tmp_path: Path
) -> None:
    """As an autoscaler's; what it can never have is named at once."""
    with cluster([0], tmp_path) as nodes:
        (head,) = nodes
        variables = {"RAY_ADDRESS": head.address, **OPEN}
        too_much = train({"steps": 20}, variables=variables | {"DXAI_RAY_LIMIT": "CPU=0"})
        grows = train({"steps": 20}, variables=variables | {"DXAI_RAY_LIMIT": "GPU=1,CPU=1"})
        assert too_much.wait() == 1
        assert "the cluster has 0 CPU, training.workers needs 1 x 1 CPU" in too_much.said()
        wait_for(lambda: "waiting until 1 x 1 CPU are free" in grows.said(), grows.said)
        add_node(nodes, head.address, 1, tmp_path)
        grows.result()


STAGE = "joint_decompose@textures-joint-0"
SCRIPT = """
import sys, torch
from pathlib import Path
from dxai.config.params_file import load_params
from dxai.training.checkpoints import Checkpoint
from dxai.training.decomposition import DecompositionJob
from dxai.training.runtime.supervisor import prepare_torch
from dxai.training.events import EventSink
from dxai.training.distributed import ProcessGroup

rank, line, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
params = load_params()
prepare_torch(params.training)
torch.distributed.init_process_group("gloo", f"file://{line}", rank=rank, world_size=2)
settings = params.decompose_for("textures", "joint")
job = DecompositionJob("data/prepared/textures", settings, None, 0)
job.run(torch.device("cpu"), Checkpoint(folder), EventSink(), ProcessGroup(rank, 2))
"""
"""One of two workers that share each batch, without Ray."""


def test_a_cluster_that_loses_a_machine_then_its_head_and_dvc_repro_after_it(
    make_project: Callable[..., Project], tmp_path: Path
) -> None:
    project = make_project()
    small = {"decompose.steps": "400", "decompose.log_every": "1", "decompose.panel_every": "400"}
    workers = {"executor": "ray", "workers": "2", "cpus_per_worker": "1", "placement": "SPREAD"}
    overrides = small | {f"training.{key}": value for key, value in workers.items()}
    project.select(profile="smoke", overrides=overrides)
    prepared = project.run("dvc", "repro", "prepare@textures")
    assert prepared.returncode == 0, prepared.stdout
    plain = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                SCRIPT,
                str(rank),
                str(tmp_path / "line"),
                str(tmp_path / "two"),
            ],
            cwd=project.root,
            env=os.environ | {"PYTHONPATH": str(project.root)},
        )
        for rank in range(2)
    ]
    said = tmp_path / "said.txt"

    def text() -> str:
        return said.read_text(errors="replace")

    def told(kind: str) -> list[dict[str, Any]]:
        files = project.root.glob(".work/checkpoints/*/events.jsonl")
        return [event for file in files for event in events_of(file, kind)]

    with cluster([2, 2], tmp_path) as (head, other):
        environment = project.environment | OPEN | {"RAY_ADDRESS": head.address}
        with said.open("wb") as output:
            first = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", STAGE],
                cwd=project.root,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: len(told("row")) > 8, lambda: f"steps: {text()}")
        on_each = [
            [c for c in node.found.values() if "RayTrainWorker" in c] for node in (head, other)
        ]
        assert [len(workers) for workers in on_each] == [1, 1]
        other.kill()
        wait_for(
            lambda: len(told("start")) > 1, lambda: f"a start after the loss of a machine: {text()}"
        )
        start = told("start")[1]
        assert start["step"] > 0
        wait_for(lambda: told("row")[-1]["step"] > start["step"] + 8, lambda: f"steps: {text()}")
        head.kill("raylet")
        assert first.wait(120) != 0, text()
        assert "nothing answers there" in text()
    done = project.run("dvc", "repro", STAGE)
    assert done.returncode == 0, done.stdout
    (step,) = re.findall(r"continuing from step (\d+)", done.stdout)
    assert int(step) > start["step"]
    assert [process.wait() for process in plain] == [0, 0]
    expected = Checkpoint(tmp_path / "two").load()
    assert expected is not None
    found, *_ = load_decomposer(project.root / "artifacts/decompositions/textures/joint/0")
    assert digest(found.state_dict()) == digest(expected["networks"]["average"])
