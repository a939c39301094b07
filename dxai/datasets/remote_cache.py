"""Folder of a prepared dataset: local, or on an object store whose files are fetched once.

Fetched files are kept in `$DXAI_CACHE` (default `~/.cache/dxai`) under their SHA-256, so that all
processes of a machine, and all copies of a shard, share them. A file appears there only whole and
with its hash; if several processes want it at once, one fetches it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from filelock import FileLock

from dxai.datasets.base import DataError
from dxai.paths import MANIFEST
from dxai.utils.files import atomic, read_json, sha256
from dxai.utils.storage import open_url, refuse_credentials, send_file, with_retries


def cache_root() -> Path:
    """Folder of this machine's fetched files."""
    return Path(os.environ.get("DXAI_CACHE") or "~/.cache/dxai").expanduser()


def publish(folder: Path, url: str) -> None:
    """Copy a prepared dataset's folder to an object store, without files that it already has.

    The manifest goes last: a folder without one is not a dataset. Failures raise `StorageError`.
    """
    system, root = open_url(url)
    manifest = folder / MANIFEST
    names = [*sorted(read_json(manifest)["files"]), MANIFEST]
    for name in names:
        content = folder / name

        def send(content: Path = content, name: str = name) -> None:
            there = f"{root}/{name}"
            if not system.exists(there) or system.info(there)["size"] != content.stat().st_size:
                send_file(system, content, there)

        with_retries(send, f"{url}/{name}: cannot be sent")


def open_folder(path: Path | str) -> Folder:
    """Open the folder at a local path or a URL."""
    text = str(path)
    return RemoteFolder(text) if "://" in text else Folder(Path(path))


class Folder:
    """A prepared dataset's folder on this machine."""

    remedy = "run the stage prepare again"  # advice in the message about a damaged file

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read_json(self, name: str) -> Any:
        """Read a small file, bypassing the cache."""
        return read_json(self.root / name)

    def missing(self, names: list[str], hashes: dict[str, str]) -> list[str]:
        """Names of missing files; `hashes` has the SHA-256 of every file."""
        return [name for name in names if not (self.root / name).is_file()]

    def path(self, name: str) -> Path:
        """Local path of a file."""
        return self.root / name


class RemoteFolder(Folder):
    """Folder behind a URL (``s3://bucket/prepared/dota``), read through the cache."""

    remedy = "delete it, and it is fetched again"

    def __init__(self, url: str) -> None:
        refuse_credentials(url)
        self.url = url.rstrip("/")
        self.hashes: dict[str, str] = {}
        super().__init__(cache_root())

    def __str__(self) -> str:
        return self.url

    def read_json(self, name: str) -> Any:
        where = f"{self.url}/{name}"
        system, path = open_url(where)
        return json.loads(with_retries(lambda: system.cat_file(path), f"{where}: cannot be read"))

    def missing(self, names: list[str], hashes: dict[str, str]) -> list[str]:
        for name, value in hashes.items():
            if not re.fullmatch("[0-9a-f]{64}", value):  # it becomes the name of a local file
                raise DataError(
                    f"{self.url}: the SHA-256 of {name} is {value!r}, not 64 hexadecimal digits"
                )
        self.hashes = hashes
        return []  # a missing file is noticed when it is needed

    def path(self, name: str) -> Path:
        """Fetch a file if necessary, and return its local path.

        Raise `DataError` or `StorageError` if it is missing, cannot be fetched or kept, or its hash
        differs from the manifest's.
        """
        wanted = self.hashes[name]
        target = self.root / "shards" / f"{wanted}.parquet"
        if target.is_file():
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_suffix(".lock")):
                if not target.is_file():
                    self._fetch(f"{self.url}/{name}", wanted, target)
        except OSError as error:
            raise DataError(f"{self.root}: cannot keep {self.url}/{name} ({error})") from error
        return target

    def _fetch(self, where: str, wanted: str, target: Path) -> None:
        for left in target.parent.glob(f".{target.name}.*"):  # by a killed process
            left.unlink()
        system, path = open_url(where)

        def get() -> None:
            with atomic(target) as temporary:
                system.get_file(path, str(temporary))
                if sha256(temporary) != wanted:
                    raise ConnectionError("its content is not what the manifest's hash says")

        with_retries(get, f"{where}: cannot be fetched to {self.root}")
