"""Programs that are started, found again and ended, in place of the three servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dxai.processes import group_alive
from infra import services
from infra.services import Place, ServiceError

PROGRAM = """
import subprocess, sys, time
subprocess.Popen(["sleep", "600"])
print("hello", flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A folder in which `worker` is a program that waits, with a child that does too."""
    monkeypatch.setattr(services, "command", lambda *_: [sys.executable, "-c", PROGRAM])
    place = Place(tmp_path)
    yield place
    services.stop(place, "worker", grace=1.0)


def test_a_service_is_started_once_and_found_again(place: Place) -> None:
    process = services.start(place, "worker")
    assert process is not None
    assert services.running(place, "worker") == {"pid": process.pid, "port": 0}
    assert services.start(place, "worker") is None


def test_it_ends_with_its_children(place: Place) -> None:
    process = services.start(place, "worker")
    assert process is not None
    assert services.stop(place, "worker")
    assert not group_alive(process.pid)
    assert services.running(place, "worker") is None
    assert not services.stop(place, "worker")


def test_it_outlives_its_launcher(place: Place) -> None:
    code = (
        "import sys; from pathlib import Path; from infra import services\n"
        f"services.command = lambda *_: [sys.executable, '-c', {PROGRAM!r}]\n"
        f"print(services.start(services.Place(Path({str(place.root)!r})), 'worker').pid)"
    )
    launcher = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    found = services.running(place, "worker")
    assert found is not None
    assert found["pid"] == int(launcher.stdout)
    assert services.stop(place, "worker")


def test_a_process_id_that_another_program_has_now_is_left_alone(place: Place) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        path = place.work / "pids/worker"
        path.parent.mkdir(parents=True)
        path.write_text(f'{{"pid": {other.pid}, "port": 0}}')
        assert services.running(place, "worker") is None
        assert not services.stop(place, "worker")
        assert other.poll() is None
        other.kill()


def test_what_a_killed_service_left_is_found_and_ended(place: Place) -> None:
    process = services.start(place, "worker")
    assert process is not None
    log = place.work / "logs/worker.log"
    while "hello" not in log.read_text():
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert services.running(place, "worker") is None
    assert services.alive(place, "worker")
    again = services.start(place, "worker")
    assert again is not None
    assert not group_alive(process.pid)


def test_a_service_that_ends_while_starting_is_reported_with_its_words(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "print('no such table: runs'); raise SystemExit(1)"
    monkeypatch.setattr(services, "command", lambda *_: [sys.executable, "-c", code])
    process = services.start(place, "worker")
    assert process is not None
    process.wait()
    with pytest.raises(ServiceError, match=r"(?s)worker has ended.*no such table: runs"):
        services.wait(place, "worker", "http://127.0.0.1:1", print)


def test_a_taken_port_is_named_with_the_way_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("DXAI_MLFLOW_PORT", str(port))
        with pytest.raises(ServiceError, match=f"port {port}.*DXAI_MLFLOW_PORT"):
            services.start(place, "mlflow")


def test_a_running_service_keeps_its_port_whatever_the_environment_says(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("DXAI_PREFECT_PORT", str(port))
    assert services.start(place, "prefect")
    monkeypatch.setenv("DXAI_PREFECT_PORT", "1")
    assert place.environment()["PREFECT_API_URL"] == f"http://127.0.0.1:{port}/api"
    services.stop(place, "prefect", grace=1.0)
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
    with services.alone(place, "benchmark"):
        code = (
            "from pathlib import Path; from infra import services\n"
            f"with services.alone(services.Place(Path({str(place.root)!r})), 'benchmark'): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"another benchmark runs in this folder: process {os.getpid()}" in other.stderr
    with services.alone(place, "benchmark"):
        pass
