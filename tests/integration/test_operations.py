"""One user's services where a machine is unkind: foreign settings, odd paths, lost workers.

All tests share one Prefect server and its worker. No stage runs.
"""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows import slots
from infra import alerts
from infra.deployments import RUNS
from tests.integration.conftest import Project, copy_project, wait_for
from tests.operating_manual import block
from tests.servers import serving
from tests.webhook_receiver import Hook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEPLOYMENT = "dxai/full-benchmark"
FOREIGN = {
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://me:no@127.0.0.1:1/none",
    "PREFECT_SERVER_API_PORT": "1",
    "PREFECT_API_AUTH_STRING": "me:no",
    "http_proxy": "http://127.0.0.1:1",
    "https_proxy": "http://127.0.0.1:1",
    "RAY_ADDRESS": "local",
    "HOME": "/proc/self/fdinfo",
}
"""What the shell says of other servers; and a home folder in which not even root can write."""


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """Start the services in a folder with a space and what looks like an escape, from such a shell.

    A shared folder for temporary files has been taken by another user.
    """
    folder, exits = Path(tempfile.mkdtemp(prefix="dx")), contextlib.ExitStack()
    root = folder / "a clone%20x"
    root.mkdir()
    copy_project(root)
    project = Project(root, folder / "audit")
    del project.environment["PREFECT_API_URL"]
    project.environment |= FOREIGN | {"TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    (folder / "tmp/runner_storage").touch()
    hook = exits.enter_context(serving(Hook()))
    project.told = hook.got
    project.environment |= {"DXAI_ALERTS": f"{hook.url}/t0ken", "DXAI_DISK_ALERT": "1000000"}
    try:
        up = project.local("up")
        assert up.returncode == 0, up.stdout
        yield project
        assert project.local("down").returncode == 0
        assert not (root / ".work/prefect/profiles.toml").exists()
        assert not project.processes()
    finally:
        project.close()
        exits.close()
        shutil.rmtree(folder)


@pytest.fixture
def waiting(project: Project) -> Iterator[None]:
    """Keep runs from computing anything: they wait for a core."""
    cores = os.cpu_count() or 1
    with slots.cores(project.root / ".work/slots", cores, cores, "run of a test", print):
        yield


def scheduled(project: Project) -> str:
    return str(project.api.run(DEPLOYMENT, {})["id"])


def unserved(project: Project, state: dict[str, str], queue: str) -> str:
    """Create a run in this state, in a new queue that no worker serves; returns its id."""
    found = project.api.deployment(DEPLOYMENT)
    assert found is not None
    project.api.call("work_pools/dxai-local/queues", {"name": queue, "is_paused": True})
    body = {"state": {"type": "SCHEDULED"}, "work_queue_name": queue}
    run = str(project.api.call(f"deployments/{found['id']}/create_flow_run", body)["id"])
    if state["type"] != "SCHEDULED":
        project.api.call(f"flow_runs/{run}/set_state", {"state": state, "force": True})
    return run


def ended(project: Project, run: str) -> Callable[[], bool]:
    return lambda: project.api.state(run)["type"] in ("FAILED", "COMPLETED", "CRASHED", "CANCELLED")


def test_prefect_s_command_speaks_to_the_server_of_its_folder_and_a_bad_store_ends_a_run_at_once(
    project: Project,
) -> None:
    """MLflow's database is a folder here, which nothing but a look at it can tell."""
    database, kept = project.root / ".work/mlflow.db", project.root / ".work/kept.db"
    if database.exists():
        database.rename(kept)
    database.mkdir()
    before = len(project.flow_runs())
    environment = {k: v for k, v in project.environment.items() if k not in FOREIGN}
    environment["no_proxy"] = "127.0.0.1"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "deployment", "run", DEPLOYMENT],
            cwd=project.root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        run, *others = project.flow_runs()
        assert len(others) == before
        wait_for(ended(project, run["id"]), 120)
    finally:
        database.rmdir()
        if kept.exists():
            kept.rename(database)
    state, log = project.api.state(run["id"]), project.log(run["id"])
    assert state["type"] == "FAILED"
    assert "MLflow (sqlite" in state["message"] and "unable to open" in state["message"]
    assert "items, up to" not in log
    assert not list((project.root / "data/prepared").iterdir())


def test_the_runs_of_a_worker_that_is_gone_keep_no_slot(project: Project, waiting: None) -> None:
    """As a container that starts again finds them; what is Cancelling, a worker cancels."""
    names = {"PENDING": "Submitting", "RUNNING": "Running"}
    lost = [unserved(project, {"type": kind, "name": name}, name) for kind, name in names.items()]
    following = scheduled(project)
    time.sleep(5)
    assert project.api.state(following)["type"] == "SCHEDULED"
    environment = project.environment | {"PREFECT_API_URL": project.api.url}
    done = subprocess.run(
        [sys.executable, "-m", "infra.deployments"],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("marked as crashed") == len(lost)
    assert {project.api.state(run)["type"] for run in lost} == {"CRASHED"}
    wait_for(lambda: project.api.state(following)["type"] == "RUNNING", 60)
    project.api.set_state(following, "CANCELLING", "seen enough")
    wait_for(ended(project, following), 60)


def test_a_killed_worker_is_replaced_and_the_next_run_starts_within_a_minute(
    project: Project, waiting: None
) -> None:
    lost = [scheduled(project) for _ in range(RUNS)]
    wait_for(lambda: {project.api.state(run)["type"] for run in lost} == {"RUNNING"}, 60)
    following = scheduled(project)
    (worker,) = (pid for pid, name in project.processes().items() if "prefect worker start" in name)
    os.kill(worker, signal.SIGKILL)
    began = time.monotonic()
    wait_for(lambda: project.api.state(following)["type"] == "RUNNING", 60)
    assert {project.api.state(run)["type"] for run in lost} == {"CRASHED"}
    assert time.monotonic() - began < 60
    engines = [name for name in project.processes().values() if "prefect.engine" in name]
    assert len(engines) == 1, engines  # the lost runs' processes are gone, too
    assert "the worker is gone (SIGKILL)" in (project.root / ".work/logs/worker.log").read_text()
    project.api.set_state(following, "CANCELLING", "seen enough")
    wait_for(ended(project, following), 60)


def test_a_late_run_a_lost_worker_and_a_full_disk_are_told_to_the_webhook(
    project: Project,
) -> None:
    """The server misses a worker only after minutes, so that event is sent."""
    late = unserved(project, {"type": "SCHEDULED"}, "a queue of late runs")

    def told(text: str) -> Callable[[], bool]:
        return lambda: any(text in message["text"] for message in project.told)

    wait_for(told(" GiB are free for "), 60)
    wait_for(told("is late: no worker has started it"), 60)
    project.api.set_state(late, "CANCELLED", "seen enough")
    pool = project.api.call("work_pools/dxai-local")
    resource = {
        "prefect.resource.id": f"prefect.work-pool.{pool['id']}",
        "prefect.resource.name": pool["name"],
    }
    event = {
        "id": str(uuid.uuid4()),
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": "prefect.work-pool.not-ready",
        "resource": resource,
    }
    project.api.call("events", [event])
    wait_for(told("no worker of the work pool dxai-local answers"), 60)
    assert "t0ken" not in (project.root / ".work/logs/worker.log").read_text()
    alerts.set_up(project.api, "")
    assert not project.api.call("automations/filter", {})


@pytest.mark.parametrize("end", ["terminal", "pipe"])
def test_a_closed_terminal_or_pipe_cancels_the_run(
    project: Project, waiting: None, end: str
) -> None:
    """The launcher sees it as the run waits; nothing is left in the queue."""
    command = [sys.executable, "-m", "infra.local", "benchmark"]
    before = len(project.flow_runs())
    if end == "terminal":
        pid, descriptor = pty.fork()
        if pid == 0:
            os.chdir(project.root)
            os.execve(sys.executable, command, project.environment)
    else:
        descriptor, theirs = os.pipe()
        process = subprocess.Popen(
            command, cwd=project.root, env=project.environment, stdout=theirs
        )
        os.close(theirs)
        pid = process.pid
    seen = b""
    while b"waiting until run of a test" not in seen:
        part = os.read(descriptor, 4096)
        assert part, seen
        seen += part
    os.close(descriptor)
    run = project.flow_runs()[0]["id"]
    if end == "pipe":  # it is noticed at the next line
        project.api.call("logs/", [_line(run)])
        code = process.wait(120)
    else:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 128 + (signal.SIGHUP if end == "terminal" else signal.SIGPIPE)
    wait_for(ended(project, run), 60)
    assert project.api.state(run)["type"] == "CANCELLED"
    assert len(project.flow_runs()) == before + 1
    assert project.local("status").stdout.count("running, process") == 3  # they ran before


def _line(run: str) -> dict[str, object]:
    """Return a line of a run's log."""
    return {
        "flow_run_id": run,
        "name": "test",
        "level": 20,
        "message": "a line that nobody reads",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def test_databases_are_copied_while_their_servers_write(project: Project) -> None:
    """The manual's commands for one user's services; test_operating.py has those of a cluster."""
    (project.root / ".dvc/cache").mkdir(exist_ok=True)
    (project.root / "dvc.lock").touch()
    run = scheduled(project)
    script = "set -e\n" + block("Back up and restore", 1)
    done = subprocess.run(
        ["bash", "-c", script], cwd=project.root, env=project.environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    copy = project.root.parent / "dxai-backup/files/.work"
    with contextlib.closing(sqlite3.connect(copy / "prefect/prefect.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ids = {uuid.UUID(row[0]) for row in database.execute("SELECT id FROM flow_run")}
        assert uuid.UUID(run) in ids
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone()[0] >= 1
    wait_for(ended(project, run), 120)


def test_history_is_listed_and_goes_only_if_told_to(project: Project) -> None:
    before = len(project.flow_runs())
    assert before
    young = project.run("dxai", "clean", "prefect", "--older", "1", "--yes")
    listed = project.run("dxai", "clean", "prefect", "--older", "0")
    assert (young.returncode, listed.returncode) == (0, 0), young.stdout + listed.stdout
    assert f"{before} runs in Prefect" in listed.stdout
    assert len(project.flow_runs()) == before
    assert project.run("dxai", "clean", "prefect", "--older", "0", "--yes").returncode == 0
    assert not project.flow_runs()
