"""MLflow's server, and its database when the installed MLflow is a newer one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata

from infra.supervisor import BUCKET, HOST, Place, ServiceError, module, run


def command(place: Place) -> list[str]:
    """How it is started; artifacts go through it, so that clients need nothing but its address."""
    server = module("mlflow", "server", "--host", HOST, "--workers", "1")
    server += ["--port", str(place.port("mlflow")), "--backend-store-uri", database(place)]
    if not place.cluster:
        return [*server, "--default-artifact-root", str(place.work / "mlflow-artifacts")]
    return [*server, "--artifacts-destination", f"s3://{BUCKET}/mlflow"]


def database(place: Place) -> str:
    """Its URL; of PostgreSQL without the password."""
    return place.database("mlflow", "psycopg") if place.cluster else place.tracking_uri


def prepare(place: Place, say: Callable[[str], None]) -> None:
    """Name what is not installed, and bring the database up to date.

    Raises
    ------
    ServiceError
        If either cannot be done.
    """
    if place.cluster and importlib.util.find_spec("psycopg") is None:
        raise ServiceError("MLflow on PostgreSQL needs psycopg: `pip install -e '.[cluster]'`")
    upgrade(place, say)


def upgrade(place: Place, say: Callable[[str], None]) -> None:
    """Change the database as this version of MLflow wants it, which refuses an older one's.

    Raises
    ------
    ServiceError
        If MLflow cannot; the text is its own.
    """
    stamp, version = place.work / "mlflow-version", metadata.version("mlflow")
    before = stamp.read_text() if stamp.exists() else version
    if before != version:
        say(f"mlflow: bringing its database from version {before} to {version}")
        done = run(place, "mlflow", "db", "upgrade", database(place))
        if done.returncode != 0:
            raise ServiceError(f"mlflow db upgrade failed:\n{done.stderr[-1000:]}")
    stamp.write_text(version)
