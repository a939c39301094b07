"""The worker's keeper, with small programs for the worker; tests/integration has the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dxai.utils.processes import members
from infra import log_files, worker
from tests.servers import serving
from tests.unit.infra.test_supervisor import ROOT
from tests.webhook_receiver import Hook

KEEP = """
import logging, signal, sys
from infra import worker
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
worker.FORWARD_SECONDS = 0.5
command = [sys.executable, "-c", sys.argv[1]]
keeper = worker.Keeper(command, lambda: not print("recovered", flush=True), lambda: None)
signal.signal(signal.SIGTERM, keeper.ask)
sys.exit(keeper.keep())
"""
WAIT = """
import os, subprocess, time
print("run by", subprocess.Popen(["sleep", "600"]).pid, "of", os.getpid(), flush=True)
time.sleep(600)
"""

PUBLISH = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    client.request("POST", "/artifacts/", json={"key": "table-1"})
"""


def keep(folder: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", KEEP, code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ids(line: str) -> list[int]:
    return [int(word) for word in line.split() if word.isdigit()]


def test_a_killed_one_is_replaced_and_what_it_left_is_ended_first(tmp_path: Path) -> None:
    with keep(tmp_path, WAIT) as process:
        assert process.stdout is not None
        child, worker = ids(process.stdout.readline())
        os.kill(worker, signal.SIGKILL)
        assert "SIGKILL" in process.stdout.readline()
        assert process.stdout.readline() == "recovered\n"
        assert child not in members(process.pid, os.getpgid)
        assert ids(process.stdout.readline()) != [child, worker]
        process.send_signal(signal.SIGTERM)  # this one alone: it reaches the worker later
        assert process.wait(20) == (-signal.SIGTERM) % 256
        for pid in members(process.pid, os.getpgid):
            os.kill(pid, signal.SIGKILL)


def test_one_that_ends_by_itself_at_once_is_not_started_again(tmp_path: Path) -> None:
    began = time.monotonic()
    with keep(tmp_path, "print('no such pool'); raise SystemExit(3)") as process:
        assert process.stdout is not None
        assert process.stdout.read() == "no such pool\n"
        assert process.wait(20) == 3
    assert time.monotonic() - began < 20


def test_a_signal_to_the_group_ends_both_at_once(tmp_path: Path) -> None:
    with keep(tmp_path, WAIT) as process:
        assert process.stdout is not None
        assert ids(process.stdout.readline())
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
    assert time.monotonic() - began < 5
    assert not members(process.pid, os.getpgid)


def test_a_run_outlives_the_loss_of_the_server_s_database(tmp_path: Path) -> None:
    """The server answers 500 then."""
    with serving(Hook()) as server:
        server.failures = [500]
        own = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(tmp_path)}
        own["PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"] = "false"
        command = [sys.executable, "-c", PUBLISH]
        subprocess.run(command, env=os.environ | own | worker.PATIENT, check=True)
    assert server.got == [{"key": "table-1"}]


def test_logs_are_rotated_under_the_service_s_hands(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    began = time.time()
    with log.open("ab", buffering=0) as service:
        for part in (b"a", b"b", b"c", b"d", b"e", b"f"):
            assert log_files.rotated_since(log, began) == (part > b"b")
            service.write(part * 60)
            log_files.rotate(tmp_path, largest=100)
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {
        "worker.log": b"",
        "worker.log.1": b"e" * 60 + b"f" * 60,
        "worker.log.2": b"c" * 60 + b"d" * 60,
        "worker.log.3": b"a" * 60 + b"b" * 60,
    }
    (tmp_path / "worker.log").write_bytes(b"g" * 101)
    log_files.rotate(tmp_path, largest=100)
    assert (tmp_path / "worker.log.3").read_bytes() == b"c" * 60 + b"d" * 60
