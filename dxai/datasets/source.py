"""Where raw images are: a local folder or file, or whatever fsspec opens (s3:// through s3fs).

A source lists its files once, with size and version, and reads each of them whole. What is gone,
shorter or other than it was listed is an error, never a smaller dataset.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dxai.datasets.base import DataError, File

SAMPLE = "sample"
"""The `source` that stands for a small set drawn by the layout."""
ATTEMPTS = 4
"""How often a remote read is tried, the pause between two tries doubling from `PAUSE` seconds."""
PAUSE = 0.5

T = TypeVar("T")


class Source:
    """A folder of files, local or remote.

    Attributes
    ----------
    name : str
        What the user called it, without credentials.
    table : str or None
        The CSV file in the folder that says which images there are, if the source names one.
    empty : list of str
        Folders in which `files` found nothing; an object store has none.
    """

    name: str
    table: str | None
    empty: list[str]

    def files(self) -> list[File]:
        """Every file that is not hidden, sorted by name.

        Raises
        ------
        DataError
            For a folder that is missing or closed to us, a link that leaves it, or a name that is
            no plain path.
        """
        raise NotImplementedError

    def load(self, file: File) -> bytes:
        """The content of a listed file.

        Raises
        ------
        DataError
            If it cannot be read, or is not what was listed.
        """
        raise NotImplementedError


def expand(text: str) -> str:
    """A `source` of params.yaml with `~`, `$NAME` and `${NAME}` replaced.

    Raises
    ------
    DataError
        If a named environment variable is unset or empty.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise DataError(f"source {text!r}: the environment variable {name} is not set")
        return os.environ[name]

    found = re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, text)
    return found if "://" in found else str(Path(found).expanduser())


def open_source(text: str) -> Source:
    """The source that a `source` of params.yaml names, expanded.

    Parameters
    ----------
    text : str
        A local path or an fsspec URL (``s3://bucket/prefix``) of a folder, or of a CSV file in
        it. Endpoint and credentials of S3 come from the environment (AWS_ENDPOINT_URL,
        AWS_PROFILE, AWS_ACCESS_KEY_ID ..) or from the AWS configuration files.
    """
    found, table = expand(text), None
    if suffix(found) == ".csv":
        found, _, table = found.rpartition("/")
    if "://" not in found or found.startswith("file://"):
        return LocalSource(Path(found.removeprefix("file://")), table)
    return RemoteSource(found, table)


def check_name(name: str, where: str) -> str:
    """`name`, if it is a plain path below its folder.

    Raises
    ------
    DataError
        For an absolute path, `..`, a backslash, a control character, or bytes that are no UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:  # on Linux a file name may be any bytes, which Parquet cannot keep
        raise DataError(f"{where}: the file name {name!r} is not valid UTF-8") from None
    odd = re.search(r"[\\\x00-\x1f\x7f]", name)
    parts = name.split("/")
    if odd or ".." in parts or "" in parts or "." in parts or ":" in parts[0]:
        raise DataError(f"{where}: {name!r} is no plain path below it")
    return name


def is_hidden(name: str) -> bool:
    """Whether a path, or a folder in it, starts with a dot."""
    return any(part.startswith(".") for part in name.split("/"))


class LocalSource(Source):
    """A folder on this machine.

    Parameters
    ----------
    root : Path
        The folder; links inside it may point to other places inside it only.
    table : str, optional
        A CSV file in it.
    """

    def __init__(self, root: Path, table: str | None = None) -> None:
        self.root, self.name, self.table, self.empty = root, str(root), table, []

    def files(self) -> list[File]:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder")
        home, self.empty = self.root.resolve(), []
        found = [
            File(name, stat.st_size, str(stat.st_mtime_ns))
            for name, stat in self._walk(home, "", (home,))
        ]
        return sorted(found, key=lambda file: file.name)

    def load(self, file: File) -> bytes:
        path = self.root / file.name
        try:
            data = path.read_bytes()
            stat = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        if (len(data), str(stat.st_mtime_ns)) != (file.size, file.version):
            raise DataError(f"{path}: changed while the dataset was being read")
        return data

    def _walk(
        self, home: Path, folder: str, above: tuple[Path, ...]
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Names and states of the files below a folder; `above` are the folders that hold it."""
        try:
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{self.root / folder}: cannot be listed ({error.strerror})") from error
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        if not entries:
            self.empty.append(folder)
        for entry in entries:
            name = check_name(f"{folder}/{entry.name}" if folder else entry.name, self.name)
            target = Path(entry.path).resolve() if entry.is_symlink() else None
            if target is not None and not target.is_relative_to(home):
                raise DataError(f"{entry.path}: a link that leaves {self.root}")
            try:
                if not entry.is_dir():
                    yield name, entry.stat()
                    continue
            except OSError as error:
                raise DataError(f"{entry.path}: cannot be read ({error.strerror})") from error
            place = target or above[-1] / entry.name
            if place in above:
                raise DataError(f"{entry.path}: a link to a folder that holds it")
            yield from self._walk(home, name, (*above, place))


class RemoteSource(Source):
    """A prefix of an object store, or of any other file system of fsspec.

    Parameters
    ----------
    url : str
        For example ``s3://bucket/prefix``.
    table : str, optional
        A CSV file in it.
    """

    def __init__(self, url: str, table: str | None = None) -> None:
        self.url, self.table, self.empty = url.rstrip("/"), table, []
        self.name = _without_credentials(self.url)

    def files(self) -> list[File]:
        system, root = self._open()
        listed: dict[str, Any] = with_retries(
            lambda: system.find(root, detail=True), f"{self.name}: cannot be listed"
        )
        found = []
        for path, info in listed.items():
            name = path.removeprefix(root).lstrip("/")
            if not name or path.endswith("/") or is_hidden(name):
                continue
            found.append(File(check_name(name, self.name), int(info["size"]), _version(info)))
        if not found:
            raise DataError(f"{self.name}: no such bucket or prefix, or no files in it")
        return sorted(found, key=lambda file: file.name)

    def load(self, file: File) -> bytes:
        system, root = self._open()
        where = f"{self.name}/{file.name}"

        def read() -> bytes:
            data = system.cat_file(f"{root}/{file.name}")
            if len(data) < file.size and _same(system, f"{root}/{file.name}", file):
                raise ConnectionError(f"{len(data)} of {file.size} bytes came")
            return data

        what = f"{where}: cannot be read"
        data = with_retries(read, what)
        same = with_retries(lambda: _same(system, f"{root}/{file.name}", file), what)
        if len(data) != file.size or not same:
            raise DataError(f"{where}: changed while the dataset was being read")
        return data

    def _open(self) -> tuple[Any, str]:
        """The file system and the path in it; fsspec keeps one a process."""
        import fsspec

        try:
            system, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise DataError(f"{self.name}: {error}") from error
        return system, root.rstrip("/")


def with_retries(call: Callable[[], T], what: str) -> T:
    """What `call` returns, tried again while the network or the server may recover.

    Raises
    ------
    DataError
        With `what` and the reason: at once for a missing object, a refused key or an unknown host
        of credentials, else after `ATTEMPTS` tries.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except (FileNotFoundError, PermissionError) as error:
            raise DataError(f"{what} ({_reason(error)})") from error
        except Exception as error:
            # Every client of an object store has errors of its own; none of them is ours.
            if attempt + 1 == ATTEMPTS or type(error).__name__ in FINAL_ERRORS:
                raise DataError(f"{what} ({_reason(error)})") from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError


FINAL_ERRORS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"}
)
"""Errors of the AWS client that no second try can mend."""


def _same(system: Any, path: str, file: File) -> bool:
    info = system.info(path, refresh=True) if _refreshes(system) else system.info(path)
    return (int(info["size"]), _version(info)) == (file.size, file.version)


def _refreshes(system: Any) -> bool:
    return "s3" in getattr(system, "protocol", ())


def _version(info: dict[str, Any]) -> str:
    """What tells one content of an object from the next."""
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"):
        if info.get(key):
            return str(info[key])
    return ""


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return _without_credentials(text.splitlines()[0])


def _without_credentials(text: str) -> str:
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)


def suffix(name: str) -> str:
    """The suffix of a file name, in lower case."""
    return PurePosixPath(name).suffix.lower()
