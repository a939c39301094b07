"""What the Prefect server must know before a worker starts: its pool, the flow, which runs died."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from infra import mlflow_server, supervisor
from infra.prefect_api import Prefect
from infra.supervisor import POOL, QUEUES, Place, ServiceError

DEPLOYMENT = "dxai/full-benchmark"


def server_of(place: Place) -> Prefect:
    """The Prefect server of a place."""
    return Prefect(f"{place.url('prefect')}/api")


def prepare_worker(place: Place, say: Callable[[str], None]) -> None:
    """Have a pool and a deployment, no runs of a killed worker, and where a run is logged."""
    if not place.cluster:  # there it is a file, with or without MLflow's server
        mlflow_server.upgrade(place, say)
    server = server_of(place)
    server.ensure_pool(POOL, QUEUES)
    clear_dead_runs(server, say)
    deploy(place, say)


def deploy(place: Place, say: Callable[[str], None]) -> None:
    """Register what prefect.yaml says, unless that was done with the very same files."""
    sources = [place.root / "prefect.yaml", place.root / "dxai/config/schema.py"]
    sources += sorted((place.root / "flows").glob("*.py"))
    digest = hashlib.sha256(f"{place.root} {place.cluster}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    stamp = place.work / "deployed"
    known = stamp.read_text() if stamp.exists() else ""
    if known == digest.hexdigest() and server_of(place).deployment(DEPLOYMENT):
        return
    say(f"deployment {DEPLOYMENT}: registering")
    done = supervisor.run(place, "prefect", "--no-prompt", "deploy", "--all")
    if done.returncode != 0:
        raise ServiceError(f"prefect deploy failed:\n{done.stdout}{done.stderr}")
    stamp.write_text(digest.hexdigest())


def clear_dead_runs(server: Prefect, say: Callable[[str], None]) -> None:
    """End in the server's book the runs whose worker was killed: nothing of them is left."""
    for run in server.unfinished(POOL, ("PENDING", "RUNNING", "CANCELLING")):
        say(f"run {run['name']}: its worker is gone, marked as crashed")
        server.set_state(run["id"], "CRASHED", "The worker was gone.")


def settle(place: Place, say: Callable[[str], None]) -> None:
    """Send MLflow the numbers of trainings that it missed while it was down."""
    if not any(place.work.glob("*/*/live.json")):
        return
    done = supervisor.run(place, "dxai.tracking.live")
    said = done.stdout if done.returncode == 0 else f"mlflow: nothing sent: {done.stderr[-300:]}"
    if said.strip():
        say(said.strip())
