"""A prepared dataset's folder: here, or on an object store with its files fetched once.

Files that were fetched lie in `$DXAI_CACHE` (default `~/.cache/dxai`) under their SHA-256, so that
every process of a machine, and every copy of the same shard, shares them. A file appears there only
when it is whole and has its hash; of several processes that want it at once one fetches it.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from dxai.datasets.base import DataError
from dxai.datasets.format import sha256
from dxai.datasets.source import with_retries
from dxai.files import atomic, read_json


def open_folder(place: Path | str) -> Folder:
    """The folder at a local path or a URL."""
    text = str(place)
    return RemoteFolder(text) if "://" in text else Folder(Path(place))


class Folder:
    """A prepared dataset's folder on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read_json(self, name: str) -> Any:
        """A small file, read anew."""
        return read_json(self.root / name)

    def expect(self, hashes: dict[str, str]) -> None:
        """Say which files there should be, and their SHA-256."""

    def has(self, name: str) -> bool:
        """Whether a file is there, as far as can be told without reading it."""
        return (self.root / name).is_file()

    def path(self, name: str) -> Path:
        """Where a file can be read."""
        return self.root / name


class RemoteFolder(Folder):
    """The same behind a URL, through the cache.

    Parameters
    ----------
    url : str
        For example ``s3://bucket/prepared/dota``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.hashes: dict[str, str] = {}
        super().__init__(Path(os.environ.get("DXAI_CACHE") or Path.home() / ".cache/dxai"))

    def __str__(self) -> str:
        return self.url

    def read_json(self, name: str) -> Any:
        system, path = self._open(name)
        return json.loads(with_retries(lambda: system.cat_file(path), f"{self.url}/{name}"))

    def expect(self, hashes: dict[str, str]) -> None:
        self.hashes = hashes

    def has(self, name: str) -> bool:
        return name in self.hashes

    def path(self, name: str) -> Path:
        """Where a file lies once it has been fetched.

        Raises
        ------
        DataError
            If it is missing, cannot be fetched, or is not what the manifest says.
        """
        wanted = self.hashes[name]
        target = self.root / "shards" / f"{wanted}.parquet"
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_file():
                self._fetch(name, wanted, target)
        return target

    def _fetch(self, name: str, wanted: str, target: Path) -> None:
        system, path = self._open(name)

        def get() -> None:
            with atomic(target) as temporary:
                system.get_file(path, str(temporary))
                if sha256(temporary) != wanted:
                    raise ConnectionError("its content is not what the manifest's hash says")

        try:
            with_retries(get, f"{self.url}/{name}: cannot be fetched")
        except OSError as error:
            raise DataError(
                f"{self.url}/{name}: cannot be kept in {self.root} ({error})"
            ) from error

    def _open(self, name: str) -> tuple[Any, str]:
        import fsspec

        system, root = fsspec.core.url_to_fs(self.url)
        return system, f"{root}/{name}"
