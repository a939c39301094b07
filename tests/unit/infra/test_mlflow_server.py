"""MLflow's database after an upgrade of MLflow, with MLflow's own migrations."""

from __future__ import annotations

import logging
import sqlite3
from importlib import metadata
from pathlib import Path

import alembic.command
import alembic.script
import pytest
import sqlalchemy
from mlflow.store.db.utils import _get_alembic_config, _get_latest_schema_revision
from mlflow.store.tracking.dbmodels.initial_models import Base

from infra import mlflow_server
from infra.supervisor import ServiceError, Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """Make a database with the previous schema and an experiment."""
    stack = Stack(tmp_path)
    stack.work.mkdir()
    engine = sqlalchemy.create_engine(stack.tracking_uri)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(stack.tracking_uri)
    script = alembic.script.ScriptDirectory.from_config(config)
    before = script.get_revision(_get_latest_schema_revision()).down_revision
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, str(before))
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO experiments (name, lifecycle_stage, workspace) "
                "VALUES ('kept', 'active', 'default')"
            )
        )
    engine.dispose()
    return stack


def asked(stack: Stack, query: str) -> list[str]:
    with sqlite3.connect(stack.work / "mlflow.db") as connection:
        return [value for (value,) in connection.execute(query)]


@pytest.mark.slow
def test_a_database_of_an_older_mlflow_is_brought_up_to_date(
    stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    schema = "SELECT version_num FROM alembic_version"
    assert asked(stack, schema) != [_get_latest_schema_revision()]
    (stack.work / "mlflow-version").write_text("3.0.0")
    mlflow_server.upgrade(stack)
    assert "from version 3.0.0" in caplog.messages[0]
    assert asked(stack, schema) == [_get_latest_schema_revision()]
    assert asked(stack, "SELECT name FROM experiments") == ["kept"]
    mlflow_server.upgrade(stack)
    assert len(caplog.messages) == 1


@pytest.mark.slow
def test_a_database_that_cannot_be_upgraded_is_an_error(stack: Stack) -> None:
    with sqlite3.connect(stack.work / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'unknown'")
    (stack.work / "mlflow-version").write_text("3.0.0")
    with pytest.raises(ServiceError, match=r"upgrade failed(.|\n)*unknown"):
        mlflow_server.upgrade(stack)
    assert (stack.work / "mlflow-version").read_text() == "3.0.0"


def test_the_first_start_only_notes_the_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stack = Stack(tmp_path)
    stack.work.mkdir()
    mlflow_server.upgrade(stack)
    assert not caplog.messages
    assert (stack.work / "mlflow-version").read_text() == metadata.version("mlflow")
