"""What a command says of an error: one line, without passwords."""

from __future__ import annotations

import re
import subprocess

from dxai.utils.addresses import redacted

FRAMEWORKS = {
    *("alembic", "boto3", "botocore", "dvc", "dvc_data", "dvc_objects", "httpcore", "httpx"),
    *("mlflow", "prefect", "psycopg", "ray", "requests", "sqlalchemy", "sqlite3", "urllib3"),
}
"""Packages whose exceptions are told, not shown as a traceback: most of them name a server, a
database or a file. Naming packages spares a command the import of all of them."""
LONGEST = 500
"""Largest number of letters of such a message."""
_ADVICE = re.compile(r"\s*\(Background on this error at: [^)]*\)")


def is_told(error: BaseException) -> bool:
    """Whether an error is the user's or the surroundings', to be told in one line.

    That is a ValueError, an OSError, a program that failed, or what a framework raises.
    """
    if isinstance(error, (ValueError, OSError, subprocess.SubprocessError)):
        return True
    return any(kind.__module__.partition(".")[0] in FRAMEWORKS for kind in type(error).__mro__)


def one_line(error: BaseException) -> str:
    """Return the text of an error without line breaks, passwords and advice about Python."""
    text = redacted(_ADVICE.sub("", " ".join(str(error).split()))) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} .."


def told(error: BaseException) -> str:
    """Return what a command says of an error: its own are whole, those of frameworks one line.

    Of the system's, the file and the reason are told, without the number.
    """
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return redacted(": ".join([*names, str(error.strerror)]))
    own = isinstance(error, (ValueError, OSError))
    return redacted(str(error)) if own else one_line(error)
