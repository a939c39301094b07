"""`make up CLUSTER=1`: open ports, access, secrets, and the variables given to a shell."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import boto3
import botocore.exceptions
import psycopg
import pytest

from infra import credentials, service_definitions, supervisor
from infra.ports import HOST
from tests.integration.conftest import Project
from tests.ray_jobs import LOOPBACK, listening, session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def stack(project: Project) -> supervisor.Stack:
    return supervisor.Stack(project.root, cluster=True)


def processes(project: Project) -> set[int]:
    """Return all processes that the services started, in whatever folder they work."""
    leaders = [supervisor.running(stack(project), name) for name in service_definitions.CLUSTER]
    found = {pid for leader in leaders if leader for pid in session(leader["pid"])}
    return found | project.processes().keys()


def test_all_of_it_runs_and_a_second_up_changes_nothing(cluster: Project) -> None:
    before = cluster.local("status").stdout
    assert before.count("running, process") == len(service_definitions.CLUSTER)
    again = cluster.local("up")  # also without the option: what runs decides
    assert again.returncode == 0, again.stdout
    assert cluster.local("status").stdout == before


def test_nothing_listens_beyond_loopback(cluster: Project) -> None:
    assert listening(processes(cluster)) == LOOPBACK


def secret_words(project: Project) -> list[str]:
    work = stack(project).work
    token = (work / credentials.FOLDER / "ray-token").read_text()
    return [credentials.database_password(work), credentials.store_key(work).split(",")[1], token]


def test_secrets_are_in_their_files_and_nowhere_else(cluster: Project) -> None:
    words = [word.encode() for word in secret_words(cluster)]
    kept = stack(cluster).work / credentials.FOLDER
    for path in cluster.root.rglob("*"):
        if path.is_file() and not path.is_symlink() and kept not in path.parents:
            content = path.read_bytes()
            assert not [word for word in words if word in content], path
    for pid in processes(cluster):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert not [word for word in words if word in line], line
    said = cluster.local("env").stdout.encode() + cluster.local("status").stdout.encode()
    assert not [word for word in words if word in said]


def test_without_the_secrets_nobody_gets_in(cluster: Project) -> None:
    here = stack(cluster)
    port = cluster.environment["DXAI_POSTGRES_PORT"]
    for password in ("", "wrong", credentials.USER):
        with pytest.raises(psycopg.OperationalError, match="password"):
            address = {"host": HOST, "port": port, "user": credentials.USER}
            psycopg.connect(**address, password=password, dbname="mlflow", passfile=os.devnull)
    endpoint = f"http://{HOST}:{cluster.environment['DXAI_STORE_PORT']}"
    for secret in ("wrong", credentials.USER):
        client = boto3.session.Session(credentials.USER, secret, region_name="us-east-1").client(
            "s3", endpoint_url=endpoint
        )
        with pytest.raises(botocore.exceptions.ClientError, match=r"403|denied|Signature"):
            client.list_objects_v2(Bucket=supervisor.BUCKET)
    status = [sys.executable, "-m", "ray.scripts.scripts", "status"]
    for token, works in (("f" * 64, False), (secret_words(cluster)[2], True)):
        environment = {
            name: value
            for name, value in here.environment().items()
            if not name.startswith("RAY_AUTH_TOKEN")
        }
        address = f"{HOST}:{cluster.environment['DXAI_RAY_PORT']}"
        done = subprocess.run(
            [*status, "--address", address],
            env=environment | {"RAY_AUTH_TOKEN": token},
            capture_output=True,
            text=True,
        )
        assert (done.returncode == 0) == works, done.stderr


def test_a_shell_is_given_what_programs_by_hand_need(cluster: Project) -> None:
    script = (
        f'eval "$({sys.executable} -m infra.local env)"; {sys.executable} -c "'
        "import mlflow, s3fs; print(mlflow.MlflowClient().search_experiments()[0].name); "
        "s3fs.S3FileSystem().pipe_file('dxai/hello', b'hello'); "
        "print(s3fs.S3FileSystem().cat_file('dxai/hello', start=1, end=4))\""
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=cluster.root,
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["Default", "b'ell'"], done.stderr
    assert (cluster.root / ".work/store/dxai/hello").read_text() == "hello"
