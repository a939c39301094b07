"""Atomic writes, JSON, hashes and lock files."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

TURN_SECONDS = 0.5
"""Between two looks whether it is this process's turn."""


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
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    """Raise NotADirectoryError if a file is in the place of a folder or of one that holds it."""
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{path}: {there} is a file; name another folder")


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
