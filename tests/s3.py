"""Object stores on loopback for tests: moto, rclone, and a proxy that spoils answers."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from s3fs import S3FileSystem

KEY, SECRET = f"AKI{secrets.token_hex(8).upper()}", f"s3/+{secrets.token_hex(16)}"
"""What clients must know and no file may hold."""
_buckets = itertools.count()


@dataclass
class Server:
    """A running object store.

    Attributes
    ----------
    endpoint : str
        Its URL.
    log : Path
        What it wrote; of moto, a line for each request.
    pid : int
        Its process.
    root : Path or None
        The folder that it serves; what is put there is there at once.
    """

    endpoint: str
    log: Path
    pid: int
    root: Path | None = None
    clients: list[Any] = field(default_factory=list)

    def client(self) -> Any:
        """Return a client of Amazon's own library."""
        if not self.clients:
            session = boto3.session.Session(KEY, SECRET, region_name="us-east-1")
            config = Config(s3={"addressing_style": "path"})
            self.clients.append(session.client("s3", endpoint_url=self.endpoint, config=config))
        return self.clients[0]

    def bucket(self) -> str:
        """Make a bucket; returns its name."""
        name = f"bucket-{next(_buckets)}"
        self.client().create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write an object."""
        self.client().put_object(Bucket=bucket, Key=key, Body=body)

    def upload(self, folder: Path, bucket: str, prefix: str) -> str:
        """Copy a folder; returns its URL."""
        if self.root is not None:  # thousands of requests saved
            shutil.copytree(folder, self.root / bucket / prefix, dirs_exist_ok=True)
            return f"s3://{bucket}/{prefix}"
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder).as_posix()}"
                self.put(bucket, key, path.read_bytes())
        return f"s3://{bucket}/{prefix}"

    def requests(self, method: str, path: str) -> int:
        """Count the requests that moto got for a path, ``/bucket/key``."""
        return self.log.read_text().count(f'"{method} {path} HTTP/')


def environment(endpoint: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """Return the variables that a client needs, which hide the user's own AWS settings."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent/config",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str, **credentials: str) -> None:
    """Let this process and its children use an object store.

    s3fs reads the environment once and keeps its connections, so those of other tests are dropped.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(endpoint, **credentials).items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()


@contextlib.contextmanager
def moto() -> Iterator[Server]:
    """Run a server in memory that accepts any credentials."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with _running(command, r"Running on (http://[\d.:]+)") as server:
        yield server


@contextlib.contextmanager
def rclone() -> Iterator[Server]:
    """Run a server of a folder that requires the key."""
    with tempfile.TemporaryDirectory() as root:
        program = Path(sys.executable).with_name("rclone")
        command = [str(program), "serve", "s3", "--addr", "127.0.0.1:0", root]
        command += ["--config", os.devnull, "--auth-key", f"{KEY},{SECRET}"]
        with _running(command, r"Starting s3 server on \[(http://[\d.:]+)/") as server:
            server.root = Path(root)
            yield server


@contextlib.contextmanager
def _running(command: list[str], ready: str) -> Iterator[Server]:
    """Run a server on a port of its choice, which it prints once it listens."""
    folder = Path(tempfile.mkdtemp())
    log = folder / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(ready, log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield Server(found[1], log, process.pid)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


class Proxy:
    """A TCP proxy to a server that spoils answers.

    Parameters
    ----------
    server : Server
    fault : {'cut', 'stall', 'flip'}
        Close the connection, say nothing more, or change a byte.
    after : int
        At this byte of an answer, its header included; shorter answers pass.
    times : int
        How many answers are spoiled; later ones pass.
    """

    def __init__(
        self, server: Server, fault: Literal["cut", "stall", "flip"], after: int, times: int
    ) -> None:
        address = urlsplit(server.endpoint)
        self._server = (address.hostname, address.port)
        self.fault, self.after, self.times = fault, after, times
        self.spoiled = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            sent = [0]  # bytes of the answer that is under way
            for pump in (self._ask, self._answer):
                threading.Thread(target=pump, args=(client, server, sent), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, sent: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                sent[0] = 0
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket, sent: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                start, sent[0] = sent[0], sent[0] + len(data)
                if start <= self.after < sent[0] and self._turn():
                    data = bytearray(data)
                    if self.fault == "flip":
                        data[self.after - start] ^= 1
                    else:
                        client.sendall(data[: self.after - start])
                        if self.fault == "stall":
                            self._closed.wait()
                        break
                client.sendall(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _turn(self) -> bool:
        with self._lock:
            spoil = self.spoiled < self.times
            self.spoiled += spoil
            return spoil
