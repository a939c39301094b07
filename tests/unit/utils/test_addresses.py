"""Addresses with passwords, percent signs and proxies; and what is said of errors."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy

from dxai.utils.addresses import direct_loopback, redacted, sqlite
from dxai.utils.errors import LONGEST, is_told, one_line


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:geheim@host:5000/x", "http://me:***@host:5000/x"),
        ("at postgresql+psycopg://u:ge@im@h/d failed", "at postgresql+psycopg://u:***@h/d failed"),
        ("postgresql://me:a/b@h:5432/d", "postgresql://me:***@h:5432/d"),
        ("sqlite:////a/b.db?password=geheim&x=1", "sqlite:////a/b.db?password=***&x=1"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("error: 3:4@5", "error: 3:4@5"),
    ],
)
def test_a_password_is_not_shown(address: str, shown: str) -> None:
    assert redacted(address) == shown


@pytest.mark.parametrize("name", ["plain", "a b", "a%20b", "100%", "%"])
def test_an_address_leads_to_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "some.db"
    path.parent.mkdir()
    engine = sqlalchemy.create_engine(sqlite(path, "pysqlite"))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("create table here (x)"))
    engine.dispose()
    with contextlib.closing(sqlite3.connect(path)) as found:
        assert found.execute("select name from sqlite_master").fetchall() == [("here",)]


def test_this_machine_is_reached_without_a_proxy() -> None:
    assert direct_loopback({"PATH": "/bin"}) == {}
    found = direct_loopback({"HTTPS_PROXY": "http://proxy:1", "no_proxy": "own.example, 127.0.0.1"})
    assert found["no_proxy"] == found["NO_PROXY"] == "own.example,127.0.0.1,localhost,::1"


def test_errors_of_frameworks_are_told_in_a_line_and_those_of_the_code_are_not() -> None:
    address = "postgresql+psycopg://me:geheim@127.0.0.1:1/none"
    engine = sqlalchemy.create_engine("sqlite://")
    with pytest.raises(sqlalchemy.exc.OperationalError) as caught, engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"select '{address}' from nowhere"))
    assert is_told(caught.value)
    said = one_line(caught.value)
    assert "no such table: nowhere" in said
    assert "geheim" not in said and "\n" not in said and "sqlalche.me" not in said
    assert is_told(ConnectionError()) and one_line(ConnectionError()) == "ConnectionError"
    assert not is_told(KeyError("x"))
    cut = one_line(ValueError("x" * (LONGEST - 20) + " http://me:geheim@host/"))
    assert "gehe" not in cut and len(cut) <= LONGEST + 3
    assert not is_told(AssertionError())
