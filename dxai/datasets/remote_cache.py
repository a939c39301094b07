"""A prepared dataset's folder: here, or on an object store with its files fetched once.

Files that were fetched lie in `$DXAI_CACHE` (default `~/.cache/dxai`) under their SHA-256, so that
every process of a machine, and every copy of the same shard, shares them. A file appears there only
when it is whole and has its hash; of several processes that want it at once one fetches it.
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
    """Where this machine keeps what it fetched."""
    return Path(os.environ.get("DXAI_CACHE") or "~/.cache/dxai").expanduser()


def publish(folder: Path, url: str) -> None:
    """Copy a prepared dataset's folder to an object store; what is there already is not sent.

    The manifest goes last: a folder without one is no dataset.

    Raises
    ------
    StorageError
        If it cannot be sent.
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


def open_folder(place: Path | str) -> Folder:
    """The folder at a local path or a URL."""
    text = str(place)
    return RemoteFolder(text) if "://" in text else Folder(Path(place))


class Folder:
    """A prepared dataset's folder on this machine.

    Attributes
    ----------
    remedy : str
        What to do about a file that turns out to be damaged.
    """

    remedy = "run the stage prepare again"

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def read_json(self, name: str) -> Any:
        """A small file, read anew."""
        return read_json(self.root / name)

    def missing(self, names: list[str], hashes: dict[str, str]) -> list[str]:
        """Those of the names that are not there; `hashes` has the SHA-256 of every file."""
        return [name for name in names if not (self.root / name).is_file()]

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
                raise DataError(f"{self.url}: {value!r} is no SHA-256, of {name}")
        self.hashes = hashes
        return []  # a file that cannot be fetched is found when it is needed

    def path(self, name: str) -> Path:
        """Where a file lies once it has been fetched.

        Raises
        ------
        DataError, StorageError
            If it is missing, cannot be fetched or kept, or is not what the manifest says.
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
            raise DataError(f"{self.root}: no place to keep {self.url}/{name} ({error})") from error
        return target

    def _fetch(self, where: str, wanted: str, target: Path) -> None:
        for left in target.parent.glob(f".{target.name}.*"):  # by a process that was killed
            left.unlink()
        system, path = open_url(where)

        def get() -> None:
            with atomic(target) as temporary:
                system.get_file(path, str(temporary))
                if sha256(temporary) != wanted:
                    raise ConnectionError("its content is not what the manifest's hash says")

        with_retries(get, f"{where}: cannot be fetched to {self.root}")
