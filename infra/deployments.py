"""Set up a Prefect server for its worker: work pool, deployments, and runs of a killed worker."""

from __future__ import annotations

import hashlib
import logging

from infra import mlflow_server, supervisor
from infra.prefect_api import PrefectApi
from infra.supervisor import ServiceError, Stack

DEPLOYMENT = "dxai/full-benchmark"
POOL, QUEUES = "dxai-local", ("default", "nightly")
logger = logging.getLogger(__name__)


def api_of(stack: Stack) -> PrefectApi:
    return PrefectApi(f"{stack.url('prefect')}/api")


def prepare_worker(stack: Stack) -> None:
    """Create the pool and the deployments, and close the runs of a killed worker."""
    if not stack.cluster:  # MLflow's database is a file, used even without its server
        mlflow_server.upgrade(stack)
    api = api_of(stack)
    api.ensure_pool(POOL, QUEUES)
    mark_lost_runs(api)
    deploy(stack)


def deploy(stack: Stack) -> None:
    """Register the deployments of prefect.yaml, unless the same files are registered already."""
    sources = [stack.root / "prefect.yaml"]
    # These two restrict the flow's parameters `methods` and `tables`.
    sources += [stack.root / "dxai" / m for m in ("config/schema.py", "results/table_specs.py")]
    sources += sorted((stack.root / "flows").glob("*.py"))
    digest = hashlib.sha256(f"{stack.root} {stack.cluster}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    stamp = stack.work / "deployed"
    known = stamp.read_text() if stamp.exists() else ""
    if known == digest.hexdigest() and api_of(stack).deployment(DEPLOYMENT):
        return
    logger.info(f"deployment {DEPLOYMENT}: registering")
    done = supervisor.run(stack, "prefect", "--no-prompt", "deploy", "--all")
    if done.returncode != 0:
        raise ServiceError(f"prefect deploy failed:\n{done.stdout}{done.stderr}")
    stamp.write_text(digest.hexdigest())


def mark_lost_runs(api: PrefectApi) -> None:
    """Mark the runs of a killed worker as crashed on the server."""
    for run in api.unfinished(POOL, ("PENDING", "RUNNING", "CANCELLING")):
        logger.info(f"run {run['name']}: its worker is gone, marked as crashed")
        api.set_state(run["id"], "CRASHED", "The worker was gone.")


def send_missed_metrics(stack: Stack) -> None:
    """Send MLflow the training metrics that it missed while it was down."""
    if not any(stack.work.glob("*/*/live.json")):
        return
    done = supervisor.run(stack, "dxai.tracking.live")
    text = done.stdout if done.returncode == 0 else f"mlflow: nothing sent: {done.stderr[-300:]}"
    if text.strip():
        logger.info(text.strip())
