"""Services are started, found again and stopped; small programs stand in for them."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dxai.utils.processes import members
from infra import mlflow_server, supervisor
from infra.supervisor import Service, ServiceError, Stack

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import subprocess, sys, time
subprocess.Popen(["sleep", "600"])
subprocess.Popen(["sleep", "600"], process_group=0)
print("hello", flush=True)
time.sleep(600)
"""


def python(name: str, code: str = PROGRAM, said: str = "hello", **rest: Any) -> Service:
    """Make a service of a Python program, healthy once it has printed a text."""
    command = [sys.executable, "-c", code]
    healthy = functools.partial(supervisor.has_logged, name=name, text=said)
    return Service(name, lambda stack: command, healthy, grace=1.0, **rest)


WORKER = python("worker")
"""A program that waits, with children that wait, too, one in a group of its own."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path)
    yield stack
    for name in ("worker", "prefect", "mlflow"):
        supervisor.stop(stack, python(name))


def test_a_service_is_started_once_and_found_again(stack: Stack) -> None:
    process = supervisor.start(stack, WORKER)
    assert process is not None
    assert supervisor.running(stack, "worker") == {"pid": process.pid, "port": 0, "log": 0}
    assert supervisor.start(stack, WORKER) is None


def test_it_ends_with_its_children(stack: Stack) -> None:
    process = supervisor.start(stack, WORKER)
    assert process is not None
    assert supervisor.stop(stack, WORKER)
    assert not members(process.pid, os.getsid)
    assert supervisor.running(stack, "worker") is None
    assert not supervisor.stop(stack, WORKER)


def test_it_outlives_its_launcher(stack: Stack) -> None:
    code = (
        "from pathlib import Path; from infra import supervisor\n"
        "from tests.unit.infra.test_supervisor import WORKER\n"
        f"print(supervisor.start(supervisor.Stack(Path({str(stack.root)!r})), WORKER).pid)"
    )
    launcher = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    found = supervisor.running(stack, "worker")
    assert found is not None
    assert found["pid"] == int(launcher.stdout)
    assert supervisor.stop(stack, WORKER)


def test_a_process_id_that_another_program_has_now_is_left_alone(stack: Stack) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        path = stack.work / "pids/worker"
        path.parent.mkdir(parents=True)
        path.write_text(f'{{"pid": {other.pid}, "port": 0}}')
        assert supervisor.running(stack, "worker") is None
        assert not supervisor.stop(stack, WORKER)
        assert other.poll() is None
        other.kill()


def test_what_a_killed_service_left_is_found_and_ended(stack: Stack) -> None:
    process = supervisor.start(stack, WORKER)
    assert process is not None
    log = stack.work / "logs/worker.log"
    while "hello" not in log.read_text():
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert supervisor.running(stack, "worker") is None
    assert supervisor.group(stack, "worker")
    again = supervisor.start(stack, WORKER)
    assert again is not None
    assert not members(process.pid, os.getsid)


def test_a_service_that_ends_while_starting_is_reported_with_its_words(stack: Stack) -> None:
    code = "print('no such table: runs'); raise SystemExit(1)"
    started: list[str] = []
    with pytest.raises(ServiceError, match=r"(?s)worker has ended.*no such table: runs"):
        supervisor.start_all(stack, [python("worker", code)], started)
    assert started == ["worker"]


def test_a_service_may_be_given_a_second_attempt(stack: Stack) -> None:
    file = stack.root / "tried"
    once = f"import pathlib, sys; f = pathlib.Path({str(file)!r}); again = f.exists(); f.touch()\n"
    once += "if not again: sys.exit('too busy')\n"
    supervisor.start_all(stack, [python("worker", once + PROGRAM, attempts=2)], started := [])
    assert started == ["worker"]
    assert "too busy" in stack.log("worker").read_text()
    never = python("mlflow", "print('tried'); raise SystemExit(1)", attempts=2)
    with pytest.raises(ServiceError, match="mlflow has ended"):
        supervisor.start_all(stack, [never], [])
    assert stack.log("mlflow").read_text().split() == ["tried", "tried"]


def test_each_is_started_when_what_it_needs_is_healthy(stack: Stack) -> None:
    first = python("prefect", "import time; time.sleep(1); print('up', flush=True)" + PROGRAM, "up")
    second = python("worker", needs=("prefect", "postgres"))  # the latter is not among them
    started: list[str] = []
    supervisor.start_all(stack, [second, first], started)
    assert started == ["prefect", "worker"]
    assert supervisor.has_logged(stack, "worker", "hello")
    again: list[str] = []
    supervisor.start_all(stack, [second, first], again)
    assert again == []


def test_what_cannot_go_on_without_another_is_started_anew_with_it(stack: Stack) -> None:
    head, node = python("prefect", outlives=("worker",)), python("worker", needs=("prefect",))
    supervisor.start_all(stack, [head, node], [])
    before = supervisor.running(stack, "worker")
    assert before is not None
    supervisor.stop(stack, head)
    started: list[str] = []
    supervisor.start_all(stack, [head, node], started)
    assert started == ["prefect", "worker"]
    assert not members(before["pid"], os.getsid)


def test_health_is_that_of_this_start_and_not_of_the_one_before(stack: Stack) -> None:
    supervisor.start_all(stack, [WORKER], [])
    supervisor.stop(stack, WORKER)
    assert not supervisor.has_logged(stack, "worker", "hello")
    silent = python("worker", "import time; time.sleep(600)")
    assert supervisor.start(stack, silent)
    assert "hello" in stack.log("worker").read_text()
    assert not supervisor.has_logged(stack, "worker", "hello")


def test_a_deaf_program_gets_the_next_signal(stack: Stack) -> None:
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    deaf = python("worker", code + "print('hello', flush=True); time.sleep(600)")
    deaf = dataclasses.replace(deaf, signals=(signal.SIGINT, signal.SIGTERM), grace=0.5)
    supervisor.start_all(stack, [deaf], [])
    assert supervisor.stop(stack, deaf)


def test_what_it_says_before_its_launcher_goes_on_counts(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quick(subprocess.Popen):
        """A program that prints before its launcher continues."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            while "hello" not in stack.log("worker").read_text():
                time.sleep(0.01)

    stack.log("worker").parent.mkdir(parents=True)
    stack.log("worker").write_text("an earlier start\n")
    monkeypatch.setattr(supervisor.subprocess, "Popen", Quick)
    supervisor.start(stack, WORKER)
    assert supervisor.has_logged(stack, "worker", "hello")
    assert not supervisor.has_logged(stack, "worker", "an earlier start")


def test_a_taken_port_is_named_with_the_way_out(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("DXAI_MLFLOW_PORT", str(port))
        with pytest.raises(ServiceError, match=f"port {port}.*DXAI_MLFLOW_PORT"):
            supervisor.start(stack, python("mlflow"))


def test_a_running_service_keeps_its_port_whatever_the_environment_says(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("DXAI_PREFECT_PORT", str(port))
    assert supervisor.start(stack, python("prefect"))
    monkeypatch.setenv("DXAI_PREFECT_PORT", "1")
    assert stack.environment()["PREFECT_API_URL"] == f"http://127.0.0.1:{port}/api"
    supervisor.stop(stack, python("prefect"))
    assert stack.port("prefect") == 1


def test_a_port_that_is_no_number_is_an_error(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DXAI_PREFECT_PORT", "many")
    with pytest.raises(ServiceError, match=r"DXAI_PREFECT_PORT is 'many'"):
        stack.port("prefect")
    for outside in ("0", "65536", "-1"):
        monkeypatch.setenv("DXAI_PREFECT_PORT", outside)
        with pytest.raises(ServiceError, match=f"DXAI_PREFECT_PORT is .*{outside}.* number"):
            stack.port("prefect")


def test_the_environment_is_the_project_s_own(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_PROFILE", "cloud")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql://elsewhere/prefect")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    environment = stack.environment()
    assert not {"PREFECT_API_KEY", "PREFECT_PROFILE"} & environment.keys()
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in environment
    assert environment["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert "127.0.0.1" in environment["no_proxy"]
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["PREFECT_HOME"] == str(stack.root / ".work/prefect")
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_the_server_knows_how_often_it_shall_look(stack: Stack) -> None:
    code = """if True:
        from prefect.settings import get_current_settings
        for name, value in get_current_settings().server.services:
            for key, seconds in value:
                if key.endswith("loop_seconds"):
                    print(f"PREFECT_SERVER_SERVICES_{name}_{key}".upper(), seconds)
    """
    said = subprocess.check_output([sys.executable, "-c", code], env=stack.environment(), text=True)
    found = dict(line.split() for line in said.splitlines())
    chosen = {name: float(seconds) for name, seconds in supervisor.LOOPS.items()}
    assert {name: float(found[name]) for name in chosen} == chosen


def test_the_user_s_mlflow_is_used_by_one_user_s_services_and_not_by_a_cluster(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"sqlite:///{stack.root}/.work/mlflow.db"
    assert (stack.given_store, stack.tracking_uri) == (None, own)
    assert stack.environment()["DXAI_MLFLOW_URL"] == stack.url("mlflow")
    for variable in (own, f"{stack.url('mlflow')}/"):  # as `infra.local env` says
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
        assert stack.tracking_uri == own
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.delenv("DXAI_MLFLOW_URL", raising=False)
    environment = stack.environment()
    assert environment["MLFLOW_TRACKING_URI"] == "https://mlflow.example"
    assert "DXAI_MLFLOW_URL" not in environment  # its page of the run would not exist
    assert mlflow_server.database(stack) == own
    cluster = Stack(stack.root, cluster=True)
    assert cluster.environment()["MLFLOW_TRACKING_URI"] == cluster.url("mlflow")


def test_one_command_at_a_time(stack: Stack) -> None:
    with supervisor.exclusive(stack, "benchmark"):
        code = (
            "from pathlib import Path; from infra.supervisor import Stack, exclusive\n"
            f"with exclusive(Stack(Path({str(stack.root)!r})), 'benchmark'): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"another benchmark runs in this folder: process {os.getpid()}" in other.stderr
    with supervisor.exclusive(stack, "benchmark"):
        pass
