"""The folder of a cluster's PostgreSQL, and a server in it that is killed."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from infra import postgres, service_definitions, supervisor
from infra.supervisor import ServiceError, Stack
from tests.conftest import require_program


def test_databases_of_another_version_of_postgresql_are_named(tmp_path: Path) -> None:
    require_program("pg_lsclusters")  # of postgresql-common: a server is installed
    data = tmp_path / ".work/postgres/data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServiceError, match=r"written by PostgreSQL 9, but.* postgresql-9"):
        postgres.prepare(Stack(tmp_path, cluster=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run it as somebody else")
def test_a_folder_that_postgresql_may_not_enter_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "program", lambda name: name)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServiceError, match=r"may not enter .*chmod o\+x"):
        postgres.prepare(Stack(closed, cluster=True))


@pytest.mark.parametrize("written", ["", "\n", "no number", "-5\n", "1\n"])
def test_a_lock_file_of_anything_else_is_left_to_the_server(written: str, tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(written)
    postgres.forget_zombie(tmp_path / "postmaster.pid")
    assert (tmp_path / "postmaster.pid").read_text() == written


def test_a_killed_server_has_a_successor_before_its_parent_collects_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_program("pg_lsclusters")
    service = service_definitions.SERVICES["postgres"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("DXAI_POSTGRES_PORT", str(free.getsockname()[1]))
    with tempfile.TemporaryDirectory(prefix="dxai-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # for its user
        stack = Stack(folder, cluster=True)
        try:
            killed = supervisor.start(stack, service)
            assert killed is not None
            supervisor.start_all(stack, [service], [])  # waits until it is healthy
            killed.kill()
            while supervisor.running(stack, service.name):  # its children end by themselves
                time.sleep(0.01)
            os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
            supervisor.start_all(stack, [service], started := [])
            assert started == [service.name]
            killed.wait()
        finally:
            supervisor.stop(stack, service)
