"""Passwords, keys and tokens: made here once, kept in files that only their owner can read.

Programs are told where the files are, so that no command line, environment or log holds a secret.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from dxai.utils.files import atomic

USER = "dxai"
"""The role of PostgreSQL, and the id of the S3 store's key."""
FOLDER = "secrets"
FILES = {
    "PGPASSFILE": "pgpass",
    "AWS_SHARED_CREDENTIALS_FILE": "aws-credentials",
    "AWS_CONFIG_FILE": "aws-config",
    "RAY_AUTH_TOKEN_PATH": "ray-token",
}
"""Environment variable and file."""


def environment(work: Path) -> dict[str, str]:
    """Where clients find what they need."""
    return {variable: str(work / FOLDER / name) for variable, name in FILES.items()}


def make(work: Path, store: str) -> None:
    """Make what is missing.

    Parameters
    ----------
    work : Path
        The folder .work.
    store : str
        HOST:PORT of the S3 store, for its clients.
    """
    folder = work / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    _once(folder / "pgpass", lambda: f"*:*:*:{USER}:{secrets.token_hex(32)}\n")
    _once(
        folder / "aws-credentials",
        lambda: (
            f"[default]\naws_access_key_id = {USER}\n"
            f"aws_secret_access_key = {secrets.token_hex(32)}\n"
        ),
    )
    _once(folder / "ray-token", lambda: secrets.token_hex(32))
    _write(
        folder / "aws-config",
        # rclone answers a range without the checksum that the client would ask for.
        f"[default]\nregion = us-east-1\nendpoint_url = http://{store}\n"
        "request_checksum_calculation = when_required\n"
        "response_checksum_validation = when_required\n"
        "s3 =\n    addressing_style = path\n",
    )


def database_password(work: Path) -> str:
    """PostgreSQL's password."""
    return (work / FOLDER / "pgpass").read_text().strip().rpartition(":")[2]


def store_key(work: Path) -> str:
    """The S3 store's key, as rclone takes it: `id,secret`."""
    lines = (work / FOLDER / "aws-credentials").read_text().splitlines()[1:]
    return ",".join(line.rpartition(" = ")[2] for line in lines)


def _once(path: Path, content: Callable[[], str]) -> None:
    if not path.exists():
        _write(path, content())


def _write(path: Path, content: str) -> None:
    with atomic(path) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        temporary.write_text(content)
