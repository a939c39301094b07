"""Object stores and other file systems, through fsspec (s3:// through s3fs)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dxai.utils.files import FULL_DISK

ATTEMPTS = 5
PAUSE = 1.0
"""Seconds between the first two attempts; doubled for each further one."""
S3_OPTIONS: dict[str, Any] = {
    "max_concurrency": 1,  # one request per object instead of a HEAD and then ranges
    "config_kwargs": {
        "connect_timeout": 10,  # seconds
        "read_timeout": 20,  # seconds without a byte
        "retries": {"total_max_attempts": 1},  # leave retries to `with_retries`
    },
}
"""Options of s3fs; an unresponsive server is given up after two minutes."""

SEND_SECONDS, SEND_RATE = 30.0, 1e6
"""Time limit of an upload: seconds, plus bytes divided by bytes per second. The timeouts of
S3_OPTIONS do not notice a server that stops accepting data."""

T = TypeVar("T")


class StorageError(ValueError):
    """An unusable URL or a failed transfer; the message names it and the reason."""


def refuse_credentials(url: str) -> None:
    """Raise a `StorageError`, without repeating them, if a URL contains credentials."""
    # A secret may hold a slash, so `key:` before the first one is enough; a port is digits.
    found = re.match(r"([\w+.-]+)://(?!arn:)[^/]*(@|:(?!\d*(/|$)))", url)
    if found:
        raise StorageError(
            f"{found[1]}://..: credentials in the URL; leave them to the environment "
            "(AWS_PROFILE, AWS_ACCESS_KEY_ID ..)"
        )


def open_url(url: str) -> tuple[Any, str]:
    """Open the file system of a URL (one instance per process); returns it and the path within it.

    Raises `StorageError` for a protocol that is unknown or not installed.
    """
    import fsspec

    options = S3_OPTIONS if url.startswith(("s3://", "s3a://")) else {}
    try:
        # Without a cache of listings, `info` asks the server.
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    except (ImportError, ValueError) as error:
        raise StorageError(f"{url}: {_reason(error)}") from error
    system.retries = 1  # of s3fs; see S3_OPTIONS
    return system, path.rstrip("/")


def send_file(system: Any, file: Path, path: str) -> None:
    """Upload a file to a file system from `open_url`; raise `TimeoutError` if it takes too long."""
    limit = SEND_SECONDS + file.stat().st_size / SEND_RATE
    waits = {"timeout": limit} if getattr(system, "async_impl", False) else {}
    system.put_file(str(file), path, **waits)


def with_retries(call: Callable[[], T], what: str) -> T:
    """Return `call()`, retrying while the network or the server may recover.

    Raises `StorageError`, with `what` and the reason: at once if a retry cannot help, else after
    `ATTEMPTS` attempts.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            # Every object store client raises its own error types.
            if attempt + 1 == ATTEMPTS or _is_final(error):
                raise StorageError(f"{what} ({_reason(error)})") from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError


FINAL_ERRORS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"}
)
"""Names of AWS client errors that a retry cannot fix."""


def _is_final(error: Exception) -> bool:
    return (
        isinstance(error, (FileNotFoundError, PermissionError, ValueError))
        or type(error).__name__ in FINAL_ERRORS
        or getattr(error, "errno", None) in FULL_DISK
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    if not text:
        text = "timed out" if isinstance(error, TimeoutError) else type(error).__name__
    # Remove credentials.
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)
