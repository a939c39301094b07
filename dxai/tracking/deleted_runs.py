"""Runs that were deleted in MLflow, whose files it keeps until `mlflow gc`.

The command alone would not do: it takes deleted runs whose models kept runs refer to, and those of
others that share the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import create_engine, inspect, text

from dxai.paths import Paths
from dxai.utils import addresses

BACKEND = "MLFLOW_BACKEND_STORE_URI"
"""MLflow's variable with the address of the database behind its server."""
AT_ONCE = 500
"""Runs named in one command."""
DELETED = (
    "SELECT run_uuid, deleted_time, artifact_uri FROM runs "
    "WHERE lifecycle_stage = 'deleted' AND deleted_time < :before AND run_uuid NOT IN ("
    "SELECT tags.value FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid "
    "WHERE tags.key = 'model_of_run' AND runs.lifecycle_stage = 'active')"
)


@dataclass(frozen=True)
class DeletedRun:
    """A deleted run: when, in seconds since the epoch, and its files if they are on this disk."""

    id: str
    deleted: float
    folder: Path | None


def own_store(paths: Paths) -> str | None:
    """Return the address of the database that belongs to this project alone, if it has one.

    It is the folder's own, or the one that MLFLOW_BACKEND_STORE_URI names.
    """
    if given := os.environ.get(BACKEND):
        return given
    own = addresses.sqlite(paths.mlflow_database.resolve(), "pysqlite")
    return own if os.environ.get("MLFLOW_TRACKING_URI", own) == own else None


def find(store: str, before: float) -> list[DeletedRun]:
    """Find the runs that were deleted before a time, without those whose model a kept run has."""
    if store.startswith("sqlite") and not Path(store.partition(":///")[2]).exists():
        return []
    engine = create_engine(store)
    try:
        if not inspect(engine).has_table("runs"):
            return []
        with engine.connect() as connection:
            rows = connection.execute(text(DELETED), {"before": before * 1000}).all()
    finally:
        engine.dispose()
    return [DeletedRun(run, deleted / 1000, _folder(uri)) for run, deleted, uri in rows]


def _folder(uri: str) -> Path | None:
    parts = urlsplit(uri)
    return Path(unquote(parts.path)).parent if parts.scheme in ("", "file") else None


def remove(store: str, runs: list[DeletedRun], days: float) -> None:
    """Let MLflow remove runs and their files for good; raises `ValueError` if it does not."""
    environment = {"MLFLOW_TRACKING_URI": store} | os.environ
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", store]
    for first in range(0, len(runs), AT_ONCE):
        ids = ",".join(run.id for run in runs[first : first + AT_ONCE])
        done = subprocess.run(
            [*command, "--older-than", f"{days:f}d", "--run-ids", ids],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"mlflow gc: {addresses.redacted(reason)}")
