"""Commands, environments and secrets of a cluster's services, without starting them."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import credentials, postgres, service_definitions, supervisor
from infra.ports import PORTS
from infra.supervisor import ServiceError, Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    credentials.create(tmp_path / ".work", "127.0.0.1:9050")
    return Stack(tmp_path, cluster=True)


def contents(stack: Stack) -> dict[str, str]:
    return {path.name: path.read_text() for path in (stack.work / credentials.FOLDER).iterdir()}


def test_secrets_are_made_once_for_their_owner_alone(stack: Stack) -> None:
    first = contents(stack)
    assert set(first) == set(credentials.FILES.values())
    for path in (stack.work / credentials.FOLDER).iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert (stack.work / credentials.FOLDER).stat().st_mode & 0o777 == 0o700
    credentials.create(stack.work, "127.0.0.1:1234")
    again = contents(stack)
    assert "127.0.0.1:1234" in again.pop("aws-config")
    assert again == {name: text for name, text in first.items() if name != "aws-config"}


def test_no_two_stacks_share_a_secret(stack: Stack, tmp_path: Path) -> None:
    credentials.create(tmp_path / "other", "127.0.0.1:9050")
    assert credentials.database_password(stack.work) != credentials.database_password(
        tmp_path / "other"
    )
    assert credentials.store_key(stack.work) != credentials.store_key(tmp_path / "other")


def test_no_command_line_and_one_environment_hold_a_secret(stack: Stack) -> None:
    words = [
        credentials.database_password(stack.work),
        credentials.store_key(stack.work).split(",")[1],
    ]
    words.append((stack.work / credentials.FOLDER / "ray-token").read_text())
    assert all(len(word) == 64 for word in words)
    for service in service_definitions.SERVICES.values():
        if service.name != "postgres" or any(Path("/usr/lib/postgresql").glob("*")):
            line = " ".join(service.command(stack))
            assert not [word for word in words if word in line], service.name
        values = " ".join(service.environment(stack).values())
        found = [word for word in words if word in values]
        # rclone takes its key from nowhere else.
        assert found == ([words[1]] if service.name == "store" else []), service.name


def test_a_user_s_own_store_is_not_mixed_with_this_one(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    environment = stack.environment()
    assert "AWS_ACCESS_KEY_ID" not in environment
    assert environment["RAY_ADDRESS"] == f"127.0.0.1:{stack.port('ray-head')}"
    assert "RAY_ADDRESS" not in service_definitions.ray_environment(stack)
    assert Stack(stack.root).environment()["AWS_ACCESS_KEY_ID"] == "mine"


def test_everything_listens_on_loopback() -> None:
    stack = Stack(Path("/nowhere"), cluster=True)
    for name in ("mlflow", "ray-head", "ray-node"):
        assert "127.0.0.1" in " ".join(service_definitions.SERVICES[name].command(stack))
    assert stack.environment()["PREFECT_SERVER_API_HOST"] == "127.0.0.1"


def test_services_are_listed_after_what_they_need() -> None:
    for index, name in enumerate(service_definitions.CLUSTER):
        assert set(service_definitions.SERVICES[name].needs) <= set(
            service_definitions.CLUSTER[:index]
        )
    assert set(service_definitions.LOCAL) <= set(service_definitions.CLUSTER)
    assert set(PORTS) <= set(service_definitions.CLUSTER)


def test_a_missing_program_is_named(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_definitions.shutil, "which", lambda name: None)
    with pytest.raises(ServiceError, match="apt-get install postgresql"):
        postgres.program("nothing-of-this-name")
    monkeypatch.setattr(service_definitions.sys, "executable", "/nowhere/python")
    with pytest.raises(ServiceError, match=r"rclone.*pip install"):
        service_definitions.store_command(stack)


def test_a_cluster_is_not_started_beside_the_few_services_of_one_user(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    with supervisor.exclusive(stack, "prefect"):  # as if it ran
        with pytest.raises(ServiceError, match=r"prefect.*SQLite.*make down"):
            service_definitions.find_stack(tmp_path, cluster=True)
        assert not service_definitions.find_stack(tmp_path).cluster
        with supervisor.exclusive(stack, "store"):  # a cluster, of which something is missing
            assert service_definitions.find_stack(tmp_path).cluster
            assert service_definitions.find_stack(tmp_path, cluster=True).cluster
