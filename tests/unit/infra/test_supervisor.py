"""Programs that are started, found again and ended, in place of the real ones."""

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

from dxai.utils.processes import group_alive
from infra import supervisor
from infra.supervisor import Place, Service, ServiceError

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import subprocess, sys, time
subprocess.Popen(["sleep", "600"])
print("hello", flush=True)
time.sleep(600)
"""


def python(name: str, code: str = PROGRAM, said: str = "hello", **rest: Any) -> Service:
    """A service that is a Python program, healthy once it has said something."""
    command = [sys.executable, "-c", code]
    healthy = functools.partial(supervisor.said, name=name, text=said)
    return Service(name, lambda place: command, healthy, grace=1.0, **rest)


WORKER = python("worker")
"""A program that waits, with a child that does too."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for name in ("worker", "prefect", "mlflow"):
        supervisor.stop(place, python(name))


def test_a_service_is_started_once_and_found_again(place: Place) -> None:
    process = supervisor.start(place, WORKER)
    assert process is not None
    assert supervisor.running(place, "worker") == {"pid": process.pid, "port": 0, "log": 0}
    assert supervisor.start(place, WORKER) is None


def test_it_ends_with_its_children(place: Place) -> None:
    process = supervisor.start(place, WORKER)
    assert process is not None
    assert supervisor.stop(place, WORKER)
    assert not group_alive(process.pid)
    assert supervisor.running(place, "worker") is None
    assert not supervisor.stop(place, WORKER)


def test_it_outlives_its_launcher(place: Place) -> None:
    code = (
        "from pathlib import Path; from infra import supervisor\n"
        "from tests.unit.infra.test_supervisor import WORKER\n"
        f"print(supervisor.start(supervisor.Place(Path({str(place.root)!r})), WORKER).pid)"
    )
    launcher = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    found = supervisor.running(place, "worker")
    assert found is not None
    assert found["pid"] == int(launcher.stdout)
    assert supervisor.stop(place, WORKER)


def test_a_process_id_that_another_program_has_now_is_left_alone(place: Place) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        path = place.work / "pids/worker"
        path.parent.mkdir(parents=True)
        path.write_text(f'{{"pid": {other.pid}, "port": 0}}')
        assert supervisor.running(place, "worker") is None
        assert not supervisor.stop(place, WORKER)
        assert other.poll() is None
        other.kill()


def test_what_a_killed_service_left_is_found_and_ended(place: Place) -> None:
    process = supervisor.start(place, WORKER)
    assert process is not None
    log = place.work / "logs/worker.log"
    while "hello" not in log.read_text():
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert supervisor.running(place, "worker") is None
    assert supervisor.alive(place, "worker")
    again = supervisor.start(place, WORKER)
    assert again is not None
    assert not group_alive(process.pid)


def test_a_service_that_ends_while_starting_is_reported_with_its_words(place: Place) -> None:
    code = "print('no such table: runs'); raise SystemExit(1)"
    started: list[str] = []
    with pytest.raises(ServiceError, match=r"(?s)worker has ended.*no such table: runs"):
        supervisor.start_all(place, [python("worker", code)], started, print)
    assert started == ["worker"]


def test_each_is_started_when_what_it_needs_is_healthy(place: Place) -> None:
    first = python("prefect", "import time; time.sleep(1); print('up', flush=True)" + PROGRAM, "up")
    second = python("worker", needs=("prefect", "postgres"))  # the latter is not among them
    started: list[str] = []
    supervisor.start_all(place, [second, first], started, print)
    assert started == ["prefect", "worker"]
    assert supervisor.said(place, "worker", "hello")
    again: list[str] = []
    supervisor.start_all(place, [second, first], again, print)
    assert again == []


def test_what_cannot_go_on_without_another_is_started_anew_with_it(place: Place) -> None:
    head, node = python("prefect", outlives=("worker",)), python("worker", needs=("prefect",))
    supervisor.start_all(place, [head, node], [], print)
    before = supervisor.running(place, "worker")
    assert before is not None
    supervisor.stop(place, head)
    started: list[str] = []
    supervisor.start_all(place, [head, node], started, print)
    assert started == ["prefect", "worker"]
    assert not group_alive(before["pid"])


def test_health_is_that_of_this_start_and_not_of_the_one_before(place: Place) -> None:
    supervisor.start_all(place, [WORKER], [], print)
    supervisor.stop(place, WORKER)
    assert not supervisor.said(place, "worker", "hello")
    silent = python("worker", "import time; time.sleep(600)")
    assert supervisor.start(place, silent)
    assert "hello" in place.log("worker").read_text()
    assert not supervisor.said(place, "worker", "hello")


def test_a_deaf_program_gets_the_next_signal(place: Place) -> None:
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    deaf = python("worker", code + "print('hello', flush=True); time.sleep(600)")
    deaf = dataclasses.replace(deaf, signals=(signal.SIGINT, signal.SIGTERM), grace=0.5)
    supervisor.start_all(place, [deaf], [], print)
    assert supervisor.stop(place, deaf)


def test_what_it_says_before_its_launcher_goes_on_counts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quick(subprocess.Popen):
        """A program that is quicker than whoever starts it."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            while "hello" not in place.log("worker").read_text():
                time.sleep(0.01)

    place.log("worker").parent.mkdir(parents=True)
    place.log("worker").write_text("an earlier start\n")
    monkeypatch.setattr(supervisor.subprocess, "Popen", Quick)
    supervisor.start(place, WORKER)
    assert supervisor.said(place, "worker", "hello")
    assert not supervisor.said(place, "worker", "an earlier start")


def test_a_taken_port_is_named_with_the_way_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("DXAI_MLFLOW_PORT", str(port))
        with pytest.raises(ServiceError, match=f"port {port}.*DXAI_MLFLOW_PORT"):
            supervisor.start(place, python("mlflow"))


def test_a_running_service_keeps_its_port_whatever_the_environment_says(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("DXAI_PREFECT_PORT", str(port))
    assert supervisor.start(place, python("prefect"))
    monkeypatch.setenv("DXAI_PREFECT_PORT", "1")
    assert place.environment()["PREFECT_API_URL"] == f"http://127.0.0.1:{port}/api"
    supervisor.stop(place, python("prefect"))
    assert place.port("prefect") == 1


def test_a_port_that_is_no_number_is_an_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DXAI_PREFECT_PORT", "many")
    with pytest.raises(ServiceError, match=r"DXAI_PREFECT_PORT is 'many'"):
        place.port("prefect")


def test_the_environment_is_the_project_s_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_PROFILE", "cloud")
    environment = place.environment()
    assert not {"PREFECT_API_KEY", "PREFECT_PROFILE"} & environment.keys()
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["PREFECT_HOME"] == str(place.root / ".work/prefect")
    assert environment["PATH"].startswith(str(Path(sys.executable).parent))


def test_one_command_at_a_time(place: Place) -> None:
    with supervisor.alone(place, "benchmark"):
        code = (
            "from pathlib import Path; from infra import supervisor\n"
            f"with supervisor.alone(supervisor.Place(Path({str(place.root)!r})), 'benchmark'): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"another benchmark runs in this folder: process {os.getpid()}" in other.stderr
    with supervisor.alone(place, "benchmark"):
        pass
