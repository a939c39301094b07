"""The compose file: its promises, and its commands, run here without containers."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests import containers
from tests.containers import COMPOSE, SECRET

SECRETS = {name: f"{name.lower()}-s3cret" for name in (*containers.secret_names(), "DXAI_COMMIT")}


def problems(document: dict[str, Any]) -> list[str]:
    """List faults of a compose file that its specification allows."""
    found = []
    services, volumes = document["services"], document["volumes"]
    for name, service in services.items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        checks = {
            "runs as root": re.fullmatch(r"[1-9]\d*:[1-9]\d*", service.get("user", "")),
            "writes to its root": service.get("read_only") is True,
            "has capabilities": service.get("cap_drop") == ["ALL"],
            "may gain privileges": service.get("security_opt") == ["no-new-privileges:true"],
            "is not started again": service.get("restart") == "unless-stopped",
            "has no health check": service.get("healthcheck", {}).get("test", [""])[0] == "CMD",
            "has no limits": limits.keys() == {"cpus", "memory"},
            "shares the host": not {"privileged", "network_mode", "pid", "ipc"} & service.keys(),
        }
        found += [f"{name} {text}" for text, right in checks.items() if not right]
        for port in service.get("ports", []):
            if not (isinstance(port, str) and port.startswith("127.0.0.1:")):
                found.append(f"{name} publishes {port} beyond loopback")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (COMPOSE / source).exists() if "/" in source else source in volumes
            found += [] if known else [f"{name} mounts {source}, which is not there"]
            if "/" in source and not volume.endswith(":ro"):
                found.append(f"{name} may write to the host's {source}")
        for other, how in service.get("depends_on", {}).items():
            if other not in services or how != {"condition": "service_healthy"}:
                found.append(f"{name} does not wait until {other} is healthy")
        for key, value in service.get("environment", {}).items():
            given = re.sub(r"\$\{(\w+):\?[^}]*\}", "", value)
            if SECRET.search(key) and re.sub(r"^dxai:", "", given).strip('",'):
                found.append(f"{name} has a value for {key}")
            named = re.findall(r"\$\{(\w+):\?", value)
            found += [f"{n} is not in .env.example" for n in named if n not in SECRETS]
        for word in service.get("command", []):
            if "${" in word:
                found.append(f"{name} shows {word} to whoever lists processes")
    return found


def test_it_keeps_its_promises() -> None:
    assert problems(containers.compose()) == []


@pytest.mark.parametrize("name", ["compose.yaml", "gpu.yaml"])
def test_it_is_a_compose_file(name: str) -> None:
    filled = containers.interpolate(containers.compose(name), SECRETS)
    PyCompose.from_yaml(yaml.safe_dump(filled, sort_keys=False))


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "worker runs as root": lambda s: s["worker"].pop("user"),
    "s3 runs as root": lambda s: s["s3"].update(user="0:0"),
    "mlflow writes to its root": lambda s: s["mlflow"].update(read_only=False),
    "mlflow has capabilities": lambda s: s["mlflow"].pop("cap_drop"),
    "mlflow may gain privileges": lambda s: s["mlflow"].pop("security_opt"),
    "prefect is not started again": lambda s: s["prefect"].pop("restart"),
    "ray-head has no health check": lambda s: s["ray-head"].pop("healthcheck"),
    "ray-worker has no limits": lambda s: s["ray-worker"]["deploy"]["resources"].clear(),
    "worker shares the host": lambda s: s["worker"].update(network_mode="host"),
    "publishes 4250:4200": lambda s: s["prefect"].update(ports=["4250:4200"]),
    "publishes 0.0.0.0:": lambda s: s["prefect"].update(ports=["0.0.0.0:4250:4200"]),
    "mounts nowhere": lambda s: s["s3"].update(volumes=["nowhere:/data"]),
    "mounts ./nowhere.sql": lambda s: s["postgres"].update(volumes=["./nowhere.sql:/x:ro"]),
    "may write to the host's ../..": lambda s: s["worker"].update(volumes=["../..:/source"]),
    "until nobody is healthy": lambda s: s["mlflow"]["depends_on"].update(
        nobody={"condition": "service_healthy"}
    ),
    "until s3 is healthy": lambda s: s["mlflow"]["depends_on"]["s3"].update(
        condition="service_started"
    ),
    "a value for PGPASSWORD": lambda s: s["mlflow"]["environment"].update(PGPASSWORD="mlflow"),
    "a value for POSTGRES_PASSWORD": lambda s: s["postgres"]["environment"].update(
        POSTGRES_PASSWORD="${POSTGRES_PASSWORD:-postgres}"
    ),
    "a value for PREFECT_API_AUTH_STRING": lambda s: s["worker"]["environment"].update(
        PREFECT_API_AUTH_STRING="dxai:${PREFECT_PASSWORD:?}1"
    ),
    "OTHER is not in .env.example": lambda s: s["s3"]["environment"].update(A="${OTHER:?}"),
    "to whoever lists processes": lambda s: s["s3"].update(command=["--key", "${S3_SECRET_KEY:?}"]),
}


@pytest.mark.parametrize("expected", BROKEN)
def test_a_broken_promise_is_found(expected: str) -> None:
    document = copy.deepcopy(containers.compose())
    BROKEN[expected](document["services"])
    assert any(expected in problem for problem in problems(document))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"helthcheck": {}}, "helthcheck"),
        ({"deploy": {"resources": {"limits": {"cpu": "1"}}}}, "cpu"),
        ({"depends_on": {"s3": {"condition": "healthy"}}}, "service_healthy"),
        ({"shm_size": "much"}, "shm_size"),
    ],
)
def test_the_specification_is_checked(wrong: dict[str, Any], reason: str) -> None:
    filled = containers.interpolate(containers.compose(), SECRETS)
    filled["services"]["worker"] |= wrong
    with pytest.raises(ValueError, match=reason):
        PyCompose.from_yaml(yaml.safe_dump(filled, sort_keys=False))


@pytest.mark.parametrize("missing", SECRETS)
def test_every_secret_is_demanded(missing: str) -> None:
    given = {name: value for name, value in SECRETS.items() if name != missing}
    with pytest.raises(KeyError, match=missing):
        containers.interpolate(containers.compose(), given)


WEED = """#!/bin/sh
echo "$@"
"""
"""In place of SeaweedFS' program, of which there is no package to test with."""


def test_the_store_gets_its_keys_in_a_file(tmp_path: Path) -> None:
    service = containers.interpolate(containers.compose(), SECRETS)["services"]["s3"]
    (script,) = service["command"]
    (tmp_path / "weed").write_text(WEED)
    (tmp_path / "weed").chmod(0o755)
    done = subprocess.run(
        [*service["entrypoint"], script.replace("/tmp/", f"{tmp_path}/")],
        env=service["environment"] | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"-s3.config={tmp_path}/s3.json" in done.stdout
    (identity,) = json.loads((tmp_path / "s3.json").read_text())["identities"]
    keys = {"accessKey": SECRETS["S3_ACCESS_KEY"], "secretKey": SECRETS["S3_SECRET_KEY"]}
    assert identity["credentials"] == [keys]
    assert (tmp_path / "s3.json").stat().st_mode & 0o077 == 0
    assert not any(key in done.stdout for key in keys.values())


def test_gpus_are_given_to_services_that_exist() -> None:
    assert (
        containers.compose("gpu.yaml")["services"].keys() <= containers.compose()["services"].keys()
    )
