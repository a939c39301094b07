"""An empty MLflow database, made once per session: MLflow takes seconds to make one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Have MLflow make its tables in a new database."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # takes seconds, too

    folder = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri())
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def give_store(empty_database: Path) -> Callable[[Path], None]:
    """Return a function that puts a copy where a project has its store."""

    def give(root: Path) -> None:
        (root / ".work").mkdir()
        shutil.copy(empty_database, root / ".work/mlflow.db")

    return give
