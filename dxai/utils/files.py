"""Atomic writes, JSON, hashes and lock files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

TURN_SECONDS = 0.5
"""Between two looks whether it is this process's turn."""
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Numbers of the errors of a disk that takes no more."""
ROOM = 1 << 20
"""Bytes that must fit into a folder before anything is computed for it."""


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it there when the block ends without error.

    The content is flushed to disk before the rename, so a reader, or a machine after a power
    failure, finds the old file, the new file or none. After any error, including Ctrl-C and a full
    disk, the temporary file is removed and `path` is unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _named(path, temporary):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Like `atomic`, but for a folder, which replaces the old one only once it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with _named(path, temporary):
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Let an error name `path` where it names the temporary one, or, of a full disk, nothing."""
    try:
        yield
    except OSError as error:
        full = error.filename is None and error.errno in FULL_DISK
        if full or str(error.filename).startswith(str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str] | None]:
    """Create and lock a file without waiting; yields None if another process has locked it.

    The system frees the lock when its holder and every program that inherited the file's descriptor
    have ended, however they end. `filelock.FileLock` is not inherited like this; it serves wherever
    a process only waits for its turn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


@contextlib.contextmanager
def taking_turns(path: Path, title: str) -> Iterator[str]:
    """Keep a file locked during the block, after another process's turn, which is told.

    Yields the id of the last process that was waited for, else an empty text.
    """
    other = ""
    while True:
        with locked(path) as file:
            if file is not None:
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield other
                return
        if not other:
            print(f"{title}: waiting until another process has done the same", flush=True)
        other = path.read_text() or other or "?"
        time.sleep(TURN_SECONDS)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON; raises OSError, or ValueError with the path."""
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: damaged, no JSON ({error})") from None


def require_folder(path: Path) -> None:
    """Raise OSError, with the folder and the reason, unless files can be written into `path`.

    A folder that is missing is tried where it would be made; nothing is left behind.
    """
    there = next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))
    if not there.is_dir():
        what = "a file" if there.exists() else "a link that leads nowhere"
        raise NotADirectoryError(f"{path}: {there} is {what}; name another folder")
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        reason = f"{there} takes no files ({error.strerror})"
        raise OSError(f"{path}: {reason}; name another folder") from None


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, pattern: str) -> str:
    """Hash the names and contents of the files below a folder; returns 64 hexadecimal digits."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        found.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return found.hexdigest()


def digest(value: Any) -> str:
    """Hash a JSON-like value; returns 12 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
