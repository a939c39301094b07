"""Set up a Prefect server for its worker: work pool, deployments, and runs of a killed worker.

`python -m infra.deployments` closes the runs of a worker that was killed in a container, before the
next one starts. The server is at PREFECT_API_URL.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys

from dxai.utils.addresses import reach_loopback_directly
from dxai.utils.errors import one_line
from dxai.utils.files import atomic
from infra import alerts, mlflow_server, supervisor
from infra.prefect_api import ApiError, PrefectApi
from infra.supervisor import ServiceError, Stack

DEPLOYMENT = "dxai/full-benchmark"
POOL, QUEUES = "dxai-local", ("default", "nightly")
RUNS = 2
"""Runs at once. They share the cores, and each has a workspace of its own."""
PROFILES = "profiles.toml"
logger = logging.getLogger(__name__)


def api_of(stack: Stack) -> PrefectApi:
    return PrefectApi(f"{stack.url('prefect')}/api")


def prepare_worker(stack: Stack) -> None:
    """Create pool, alerts and deployments, and close the runs of a killed worker."""
    if not stack.cluster:  # MLflow's database is a file, used even without its server
        mlflow_server.upgrade(stack)
    api = api_of(stack)
    api.ensure_pool(POOL, QUEUES, RUNS)
    if mark_lost_runs(api):
        supervisor.run(stack, "dxai.tracking.live")  # closes them in MLflow, too
    alerts.set_up(api, os.environ.get(alerts.ADDRESS, ""))
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


def name_server(stack: Stack) -> None:
    """Let `prefect` in this folder speak to this folder's server, whatever port it has.

    prefect.toml names the file. Without it a command would reach the server of another clone.
    """
    text = f'active = "dxai"\n\n[profiles.dxai]\nPREFECT_API_URL = "{api_of(stack).url}"\n'
    with atomic(stack.prefect_home / PROFILES) as temporary:
        temporary.write_text(text)


def forget_server(stack: Stack) -> None:
    """Let `prefect` in this folder speak to no server: the port may become another's."""
    (stack.prefect_home / PROFILES).unlink(missing_ok=True)


def mark_lost_runs(api: PrefectApi) -> int:
    """Mark the runs of a killed worker as crashed, whose slot the next run needs; returns how many.

    A pool has one worker, and this one is about to start.
    """
    lost = api.unfinished(POOL, ("PENDING", "RUNNING", "CANCELLING"))
    for run in lost:
        logger.info(f"run {run['name']}: its worker is gone, marked as crashed")
        api.set_state(run["id"], "CRASHED", "The worker was gone.", force=True)
    return len(lost)


def send_missed_metrics(stack: Stack) -> None:
    """Send MLflow the training metrics that it missed while it was down, and close lost runs."""
    if not any(stack.work.glob("*/*/live.json")) and not any(stack.work.glob("mlflow-runs/*")):
        return
    done = supervisor.run(stack, "dxai.tracking.live")
    text = done.stdout if done.returncode == 0 else f"mlflow: nothing sent: {done.stderr[-300:]}"
    if text.strip():
        logger.info(text.strip())


def main() -> int:
    """Close the lost runs on the server of the environment; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    reach_loopback_directly()
    login = os.environ.get("PREFECT_API_AUTH_STRING", "")
    try:
        mark_lost_runs(PrefectApi(os.environ["PREFECT_API_URL"], login))
    except (ApiError, OSError, KeyError) as error:
        print(f"error: runs of an earlier worker are not closed: {one_line(error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
