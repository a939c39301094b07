"""MLflow's server, and upgrades of its database to the installed version of MLflow."""

from __future__ import annotations

import importlib.util
import logging
from importlib import metadata

from infra.ports import HOST
from infra.supervisor import BUCKET, ServiceError, Stack, python_module, run

logger = logging.getLogger(__name__)


def command(stack: Stack) -> list[str]:
    """Return the command; in a cluster it serves artifacts too, so clients need no S3 key."""
    server = python_module("mlflow", "server", "--host", HOST, "--workers", "1")
    server += ["--port", str(stack.port("mlflow")), "--backend-store-uri", database(stack)]
    if not stack.cluster:
        return [*server, "--default-artifact-root", str(stack.work / "mlflow-artifacts")]
    return [*server, "--artifacts-destination", f"s3://{BUCKET}/mlflow"]


def database(stack: Stack) -> str:
    """Return the URL of its database, without PostgreSQL's password."""
    return stack.database("mlflow", "psycopg") if stack.cluster else stack.local_store


def prepare(stack: Stack) -> None:
    """Check that the database driver is installed, and upgrade the database."""
    if stack.cluster and importlib.util.find_spec("psycopg") is None:
        raise ServiceError("MLflow on PostgreSQL needs psycopg: `pip install -e '.[cluster]'`")
    upgrade(stack)


def upgrade(stack: Stack) -> None:
    """Upgrade a database written by an older MLflow, which the installed one refuses to use."""
    stamp, version = stack.work / "mlflow-version", metadata.version("mlflow")
    before = stamp.read_text() if stamp.exists() else version
    if before != version:
        logger.info(f"mlflow: bringing its database from version {before} to {version}")
        done = run(stack, "mlflow", "db", "upgrade", database(stack))
        if done.returncode != 0:
            raise ServiceError(f"mlflow db upgrade failed:\n{done.stderr[-1000:]}")
    stamp.write_text(version)
