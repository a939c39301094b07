"""Shards of an object store, kept on this machine."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dxai.datasets.base import DataError
from dxai.datasets.remote_cache import RemoteFolder, open_folder
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.datasets.source import open_source
from dxai.utils import storage
from dxai.utils.storage import StorageError
from tests import s3
from tests.prepared import prepared_textures

FORK = multiprocessing.get_context("fork")
"""The hardest way to start a process for a client with threads."""
SHARD = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    with s3.moto() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DXAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "PAUSE", 0.01)
    s3.use(monkeypatch, server.endpoint)
    return tmp_path / "cache"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def url(server: s3.Server) -> str:
    """Upload a folder with one shard, `x.parquet`."""
    bucket = server.bucket()
    server.put(bucket, "prepared/x.parquet", SHARD)
    return f"s3://{bucket}/prepared"


def folder(url: str, wanted: bytes = SHARD) -> RemoteFolder:
    found = open_folder(url)
    assert isinstance(found, RemoteFolder)
    found.missing(["x.parquet"], {"x.parquet": sha256(wanted)})
    return found


def gets(server: s3.Server, url: str) -> int:
    return server.requests("GET", f"{url.removeprefix('s3:/')}/x.parquet")


def kept(cache: Path) -> list[str]:
    """Return the names of all files in the cache except locks."""
    return sorted(path.name for path in cache.glob("shards/*") if path.suffix != ".lock")


def error(url: str, wanted: bytes = SHARD) -> str:
    """Return the message, a single line, of the error on requesting the shard."""
    with pytest.raises((DataError, StorageError)) as caught:
        folder(url, wanted).path("x.parquet")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def start(ask: Callable[[Any], None]) -> tuple[Any, Any]:
    """Start a process that runs `ask`; returns it, and the end of a pipe from it."""
    hear, tell = FORK.Pipe(duplex=False)
    process = FORK.Process(target=ask, args=(tell,), daemon=True)
    process.start()
    tell.close()
    return process, hear


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_a_shard_is_fetched_once_under_its_hash(server: s3.Server, url: str, cache: Path) -> None:
    for _ in range(2):
        path = folder(url).path("x.parquet")
        assert path == cache / "shards" / f"{sha256(SHARD)}.parquet"
        assert path.read_bytes() == SHARD
    assert gets(server, url) == 1
    assert kept(cache) == [path.name]


def test_processes_that_ask_at_once_fetch_once(server: s3.Server, url: str, cache: Path) -> None:
    open_source(url).files()  # leaves this process a client, which its forks must not use
    barrier = FORK.Barrier(6)

    def ask(tell: Any) -> None:
        barrier.wait()
        tell.send(sha256(folder(url).path("x.parquet").read_bytes()))

    asking = [start(ask) for _ in range(6)]
    assert [hear.recv() for _, hear in asking] == [sha256(SHARD)] * 6
    assert gets(server, url) == 1
    assert kept(cache) == [f"{sha256(SHARD)}.parquet"]


def test_datasets_that_share_a_shard_share_the_file(
    server: s3.Server, url: str, cache: Path
) -> None:
    bucket = server.bucket()
    server.put(bucket, "copy/x.parquet", SHARD)
    copy = f"s3://{bucket}/copy"
    assert folder(url).path("x.parquet") == folder(copy).path("x.parquet")
    assert (gets(server, url), gets(server, copy)) == (1, 0)


def test_the_cache_is_in_the_home_folder_unless_told(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DXAI_CACHE", "~/elsewhere")
    assert folder(url).path("x.parquet").is_relative_to(tmp_path / "home/elsewhere")
    monkeypatch.delenv("DXAI_CACHE")
    assert folder(url).path("x.parquet").is_relative_to(tmp_path / "home/.cache/dxai")


@pytest.mark.parametrize("checksum", ["CRC32", None], ids=["with-checksum", "without"])
def test_a_damaged_transfer_is_fetched_again(
    server: s3.Server,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    checksum: str | None,
) -> None:
    """S3's client may compare a checksum; without one, the manifest's hash is compared."""

    def use(proxy: s3.Proxy) -> None:
        s3.use(monkeypatch, proxy.endpoint)
        if checksum is None:
            monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")

    bucket = server.bucket()
    server.put(bucket, "prepared/x.parquet", SHARD)
    url = f"s3://{bucket}/prepared"
    with s3.Proxy(server, "flip", after=1_000_000, times=2) as proxy:
        use(proxy)
        assert folder(url).path("x.parquet").read_bytes() == SHARD
        assert (proxy.spoiled, gets(server, url)) == (2, 3)
    cache.rename(cache.with_name("other"))
    with s3.Proxy(server, "flip", after=1_000_000, times=1000) as proxy:
        use(proxy)
        message = error(url)
        assert message.startswith(f"{url}/x.parquet: cannot be fetched to {cache} (")
        reason = "checksum" if checksum else "its content is not what the manifest's hash says"
        assert reason in message
        assert proxy.spoiled == storage.ATTEMPTS
    assert kept(cache) == []


def test_other_content_than_the_manifest_says_is_not_kept(url: str, cache: Path) -> None:
    message = error(url, SHARD + b"!")
    assert message.endswith("(its content is not what the manifest's hash says)")
    assert kept(cache) == []


def test_a_cut_connection_is_mended(
    server: s3.Server, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3.Proxy(server, "cut", after=1_000_000, times=3) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        assert folder(url).path("x.parquet").read_bytes() == SHARD
        assert proxy.spoiled == 3


def test_a_fetcher_that_is_killed_leaves_nothing_and_blocks_nobody(
    server: s3.Server, url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(tell: Any) -> None:
        tell.send(sha256(folder(url).path("x.parquet").read_bytes()))

    with s3.Proxy(server, "stall", after=1_000_000, times=1) as proxy:
        s3.use(monkeypatch, proxy.endpoint)
        fetching, _ = start(ask)
        wait_for(lambda: proxy.spoiled == 1)
        waiting, hear = start(ask)
        assert not hear.poll(0.3)  # one holds the lock
        os.kill(fetching.pid, signal.SIGKILL)
        fetching.join()
        assert hear.recv() == sha256(SHARD)
        waiting.join()
    assert kept(cache) == [f"{sha256(SHARD)}.parquet"]  # and not what the dead one had begun


def test_a_shard_that_is_missing(server: s3.Server) -> None:
    bucket = server.bucket()
    url = f"s3://{bucket}/prepared"
    assert error(url).startswith(f"{url}/x.parquet: cannot be fetched to ")
    with pytest.raises(
        (DataError, StorageError), match=rf"^{url}/manifest.json: cannot be read \(.*exist"
    ):
        ShardedDataset(url, "train")


def test_a_full_disk(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands in for the disk: the write itself fails."""
    monkeypatch.setattr(storage, "PAUSE", 3600.0)

    def ask(tell: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            folder(url).path("x.parquet")
        except StorageError as caught:
            tell.send(str(caught))

    _, hear = start(ask)
    assert hear.recv() == f"{url}/x.parquet: cannot be fetched to {cache} (File too large)"
    assert kept(cache) == []


def test_a_cache_that_cannot_be_written(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DXAI_CACHE", str(tmp_path / "file"))
    assert error(url).startswith(f"{tmp_path}/file: cannot keep {url}/x.parquet (")


@pytest.mark.parametrize("value", ["../../../dvc", "", "A" * 64, "a" * 63])
def test_a_hash_that_is_none_names_no_file(url: str, value: str) -> None:
    with pytest.raises((DataError, StorageError), match=r"the SHA-256 of x\.parquet is .*, not 64"):
        open_folder(url).missing(["x.parquet"], {"x.parquet": value})


def test_credentials_in_the_url_are_refused() -> None:
    with pytest.raises((DataError, StorageError), match=r"^s3://\.\.: credentials in the URL"):
        open_folder("s3://AKIDEXAMPLE:sEcReT@bucket/prepared")


def test_the_same_batches_as_from_the_folder(
    server: s3.Server, tmp_path: Path, cache: Path
) -> None:
    here = prepared_textures(tmp_path)
    url = server.upload(here, server.bucket(), "prepared/textures")
    for split in ("train", "validation", "test"):
        local, remote = ShardedDataset(here, split), ShardedDataset(url, split)
        assert (remote.ids, remote.groups) == (local.ids, local.groups)
        for one, other in zip(local.batches(16), remote.batches(16), strict=True):
            np.testing.assert_array_equal(one.images, other.images)
            np.testing.assert_array_equal(one.labels, other.labels)
    copy = pickle.loads(pickle.dumps(remote))
    np.testing.assert_array_equal(copy.batch([0]).images, local.batch([0]).images)
    hashes = {sha256(path.read_bytes()) for path in here.glob("*.parquet")}
    assert kept(cache) == sorted(f"{value}.parquet" for value in hashes)
