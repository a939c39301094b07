"""Addresses of databases and servers: how they are written, shown and reached."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_USER = re.compile(r"(\w://[^:/@\s]*):(?!\d+/)\S*@")
"""A password may have `/` and `@` in it; digits before a `/` are a port."""
_QUERY = re.compile(r"(?i)([?&][\w-]*(?:password|passwd|secret|token)=)[^&\s'\")]+")


def redacted(text: str) -> str:
    """Replace the passwords of addresses such as `https://user:password@host` by `***`."""
    return _QUERY.sub(r"\1***", _USER.sub(r"\1:***@", text))


def sqlite(path: Path, driver: str) -> str:
    """Return the address of a SQLite database for SQLAlchemy, with a driver where one is needed.

    SQLAlchemy reads `%20` in it as a space. Where a path has a `%`, the address names the driver,
    as MLflow would make folders of the name that a bare `sqlite:` address spells.
    """
    if "%" not in str(path):
        return f"sqlite:///{path}" if driver == "pysqlite" else f"sqlite+{driver}:///{path}"
    return f"sqlite+{driver}:///" + str(path).replace("%", "%25")


def given_cluster() -> str:
    """Return RAY_ADDRESS, the cluster to join; "" where it means one of this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def direct_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which programs reach this machine without a proxy.

    They are empty where no proxy is set.
    """
    if not any(name.lower().endswith("_proxy") for name in environment):
        return {}
    listed = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = [host.strip() for host in ",".join(listed).split(",")]
    value = ",".join(dict.fromkeys([*filter(None, hosts), *LOOPBACK]))
    return {"no_proxy": value, "NO_PROXY": value}


def reach_loopback_directly() -> None:
    """Let this process and its children reach this machine without a proxy."""
    os.environ.update(direct_loopback(os.environ))
