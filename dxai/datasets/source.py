"""Sources of raw images: a local folder or file, or a URL that fsspec opens (s3:// by s3fs).

A source lists its files once, with size and version, and reads each of them whole. A file that is
missing, shorter or changed since the listing is an error, never a smaller dataset.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dxai.datasets.base import DataError, File
from dxai.utils.storage import open_url, refuse_credentials, with_retries

SAMPLE = "sample"
"""Value of `source` for a small set drawn by the layout."""


class Source:
    """A folder of files, local or remote.

    Attributes
    ----------
    name : str
        The user's name for it, without credentials.
    empty : list of str
        Folders in which `files` found nothing; object stores have none.
    hidden : list of str
        Files, and folders with all their content, that `files` skipped for the dot of their name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.empty: list[str] = []
        self.hidden: list[str] = []

    def files(self) -> list[File]:
        """List every file that is not hidden, sorted by name.

        A missing or unreadable folder, a link that leaves it, or a name that is not a plain path
        raises `DataError`.
        """
        raise NotImplementedError

    def load(self, file: File) -> bytes:
        """Read a listed file; raise `DataError` or `StorageError` if it fails or has changed."""
        raise NotImplementedError


def expand(text: str) -> str:
    """Replace `~`, `$NAME` and `${NAME}` in a `source` of params.yaml.

    An environment variable that is unset or empty raises `DataError`.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise DataError(f"source {text!r}: the environment variable {name} is not set")
        return os.environ[name]

    found = re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, text)
    return found if "://" in found else str(Path(found).expanduser())


def open_source(text: str) -> Source:
    """Open a `source` of params.yaml, expanded.

    `text` is a local path or an fsspec URL (``s3://bucket/prefix``) of a folder. Endpoint and
    credentials of S3 come from the environment (AWS_ENDPOINT_URL, AWS_PROFILE, AWS_ACCESS_KEY_ID
    ..) or from the AWS configuration files.

    An unset environment variable, or credentials in the URL, which params.yaml and dvc.lock would
    publish, raise `DataError` or `StorageError`.
    """
    refuse_credentials(text)
    found = expand(text)
    refuse_credentials(found)
    if found.rstrip("/").endswith(":"):
        raise DataError(f"source {text!r} without a bucket or folder; expected s3://bucket/prefix")
    if "://" not in found or found.startswith("file://"):
        return LocalSource(Path(found.removeprefix("file://")))
    return RemoteSource(found)


def check_plain_path(name: str, where: str) -> str:
    """Return `name` if it is a plain path below its folder, else raise `DataError`.

    Absolute paths, `..`, backslashes, control characters and invalid UTF-8 are refused.
    """
    try:
        name.encode()
    except UnicodeEncodeError:  # Linux allows any bytes in a file name, Parquet only UTF-8
        raise DataError(f"{where}: the file name {name!r} is not valid UTF-8") from None
    odd = re.search(r"[\\\x00-\x1f\x7f-\x9f]", name)
    parts = name.split("/")
    if odd or ".." in parts or "" in parts or "." in parts or ":" in parts[0]:
        raise DataError(f"{where}: {name!r} is not a plain path below it")
    return name


def is_hidden(name: str) -> bool:
    """Whether the name of a file, or of a folder above it, starts with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


class LocalSource(Source):
    """Folder on this machine; links inside it may only point to files inside it.

    With `names`, paths below it, there are no other files and folders in it, whatever it holds;
    capitals do not matter.
    """

    def __init__(self, root: Path, names: Iterable[str] | None = None) -> None:
        super().__init__(str(root))
        self.root = root
        self._only = None if names is None else {part for name in names for part in _above(name)}

    def files(self) -> list[File]:
        if not os.path.isdir(self.root):
            raise DataError(f"{self.root}: no such folder")
        home, self.empty, self.hidden = Path(os.path.realpath(self.root)), [], []
        found = [
            File(name, state.st_size, str(state.st_mtime_ns))
            for name, state in self._walk(home, "", (home,))
        ]
        return sorted(found, key=lambda file: file.name)

    def load(self, file: File) -> bytes:
        path = self.root / file.name
        try:
            data = path.read_bytes()
            state = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        if (len(data), str(state.st_mtime_ns)) != (file.size, file.version):
            raise DataError(f"{path}: changed while the dataset was being read")
        return data

    def _walk(
        self, home: Path, folder: str, above: tuple[Path, ...]
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Yield names and states of the files below a folder, which the folders `above` hold."""
        try:
            entries = sorted(os.scandir(self.root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{self.root / folder}: cannot be listed ({error.strerror})") from error
        if self._only is not None:
            top = f"{folder}/" if folder else ""
            entries = [entry for entry in entries if _form(top + entry.name) in self._only]
        shown = [entry for entry in entries if not entry.name.startswith(".")]
        if not shown:
            self.empty.append(folder)
        self.hidden += [
            f"{folder}/{entry.name}" if folder else entry.name
            for entry in entries
            if entry.name.startswith(".")
        ]
        for entry in shown:
            name = check_plain_path(f"{folder}/{entry.name}" if folder else entry.name, self.name)
            # Path.resolve raises a RuntimeError for a link to itself
            target = Path(os.path.realpath(entry.path)) if entry.is_symlink() else None
            if target is not None and not target.is_relative_to(home):
                raise DataError(f"{entry.path}: a link that leaves {self.root}")
            try:
                is_folder, state = entry.is_dir(), entry.stat()
            except OSError as error:
                raise DataError(f"{entry.path}: cannot be read ({error.strerror})") from error
            if not is_folder:
                if not stat.S_ISREG(state.st_mode):  # reading a pipe would wait for ever
                    raise DataError(f"{entry.path}: neither a file nor a folder")
                yield name, state
                continue
            real = target or above[-1] / entry.name
            if real in above:
                raise DataError(f"{entry.path}: a link to a folder that holds it")
            yield from self._walk(home, name, (*above, real))


def _form(name: str) -> str:
    """Return a name as all spellings of it have it in common."""
    return unicodedata.normalize("NFC", name).casefold()


def _above(name: str) -> Iterator[str]:
    """Yield a path and those of the folders that hold it, in their form."""
    parts = _form(name).split("/")
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))


class RemoteSource(Source):
    """Prefix of an object store (``s3://bucket/prefix``) or other fsspec file system."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"))

    def files(self) -> list[File]:
        system, root = open_url(self.name)
        listed: dict[str, Any] = with_retries(
            lambda: system.find(root, detail=True), f"{self.name}: cannot be listed"
        )
        found: list[File] = []
        self.hidden = []
        for path, info in listed.items():
            if path == root or (path.endswith("/") and not info["size"]):
                continue  # a marker of a folder
            name = path.removeprefix(f"{root}/")
            if is_hidden(name):
                self.hidden.append(name)
                continue
            if info["size"] is None:
                raise DataError(f"{self.name}/{name}: its server does not say how large it is")
            found.append(File(check_plain_path(name, self.name), int(info["size"]), _version(info)))
        if not found:
            raise DataError(f"{self.name}: no such bucket or prefix, or no files in it")
        return sorted(found, key=lambda file: file.name)

    def load(self, file: File) -> bytes:
        system, root = open_url(self.name)
        path, where = f"{root}/{file.name}", f"{self.name}/{file.name}"
        what = f"{where}: cannot be read"
        data = with_retries(lambda: system.cat_file(path), what)
        info = with_retries(lambda: system.info(path), what)
        if not len(data) == file.size == info["size"] or _version(info) != file.version:
            raise DataError(f"{where}: changed while the dataset was being read")
        return data


def _version(info: dict[str, Any]) -> str:
    """Identifier of an object's content, empty if the server gives none."""
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"):
        if info.get(key):
            return str(info[key]).strip('"')  # some servers quote it in one answer only
    return ""


def suffix(name: str) -> str:
    """Suffix of a file name, in lower case."""
    return PurePosixPath(name).suffix.lower()
