"""MLflow's database after an upgrade of MLflow, with MLflow's own migrations."""

from __future__ import annotations

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
from infra.supervisor import Place, ServiceError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """With the database of the schema before this one, and an experiment in it."""
    place = Place(tmp_path)
    place.work.mkdir()
    engine = sqlalchemy.create_engine(place.tracking_uri)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(place.tracking_uri)
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
    return place


def asked(place: Place, query: str) -> list[str]:
    with sqlite3.connect(place.work / "mlflow.db") as connection:
        return [value for (value,) in connection.execute(query)]


def test_a_database_of_an_older_mlflow_is_brought_up_to_date(place: Place) -> None:
    schema = "SELECT version_num FROM alembic_version"
    assert asked(place, schema) != [_get_latest_schema_revision()]
    (place.work / "mlflow-version").write_text("3.0.0")
    said: list[str] = []
    mlflow_server.upgrade(place, said.append)
    assert "from version 3.0.0" in said[0]
    assert asked(place, schema) == [_get_latest_schema_revision()]
    assert asked(place, "SELECT name FROM experiments") == ["kept"]
    mlflow_server.upgrade(place, said.append)
    assert len(said) == 1


def test_a_database_that_cannot_be_upgraded_is_an_error(place: Place) -> None:
    with sqlite3.connect(place.work / "mlflow.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'unknown'")
    (place.work / "mlflow-version").write_text("3.0.0")
    with pytest.raises(ServiceError, match=r"upgrade failed(.|\n)*unknown"):
        mlflow_server.upgrade(place, print)
    assert (place.work / "mlflow-version").read_text() == "3.0.0"


def test_the_first_start_only_notes_the_version(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.work.mkdir()
    mlflow_server.upgrade(place, pytest.fail)
    assert (place.work / "mlflow-version").read_text() == metadata.version("mlflow")
