"""Passwords, keys and tokens: generated once, in files that only their owner can read.

Programs receive only the files' paths, so no command line, environment or log holds a secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from dxai.utils.files import atomic

USER = "dxai"
"""PostgreSQL's role, and the id of the S3 store's key."""
FOLDER = "secrets"
FILES = {
    "PGPASSFILE": "pgpass",
    "AWS_SHARED_CREDENTIALS_FILE": "aws-credentials",
    "AWS_CONFIG_FILE": "aws-config",
    "RAY_AUTH_TOKEN_PATH": "ray-token",
}
"""Environment variable of each file."""


def environment(work: Path) -> dict[str, str]:
    """Return the variables with the files' paths, for clients."""
    return {variable: str(work / FOLDER / name) for variable, name in FILES.items()}


def create(work: Path, store: str) -> None:
    """Create missing files; `store` is the S3 store's HOST:PORT, for its clients."""
    folder = work / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    key = f"aws_access_key_id = {USER}\naws_secret_access_key = {secrets.token_hex(32)}\n"
    for name, content in {
        "pgpass": f"*:*:*:{USER}:{secrets.token_hex(32)}\n",
        "aws-credentials": f"[default]\n{key}",
        "ray-token": secrets.token_hex(32),
    }.items():
        if not (folder / name).exists():
            _write(folder / name, content)
    _write(
        folder / "aws-config",
        # rclone answers range requests without the checksum that clients expect by default.
        f"[default]\nregion = us-east-1\nendpoint_url = http://{store}\n"
        "request_checksum_calculation = when_required\n"
        "response_checksum_validation = when_required\n"
        "s3 =\n    addressing_style = path\n",
    )


def database_password(work: Path) -> str:
    return (work / FOLDER / "pgpass").read_text().strip().rpartition(":")[2]


def store_key(work: Path) -> str:
    """Read the S3 store's key in rclone's form, `id,secret`."""
    lines = (work / FOLDER / "aws-credentials").read_text().splitlines()[1:]
    return ",".join(line.rpartition(" = ")[2] for line in lines)


def _write(path: Path, content: str) -> None:
    with atomic(path) as temporary:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        temporary.write_text(content)
