"""The REST client against a server that misbehaves on request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from infra.prefect_api import ApiError, LogReader, PrefectApi
from tests.servers import serving


class Answers(BaseHTTPRequestHandler):
    """Answer with the result of the server's `answer` for path and body."""

    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.reply(*self.server.answer(self.path, body))

    def reply(self, code: int, content: Any) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None:
        pass


class FakeServer(ThreadingHTTPServer):
    """A server with log records, and codes to fail with first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.records: list[dict[str, Any]] = []
        self.failures: list[tuple[int, Any]] = []

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self.failures:
            return self.failures.pop(0)
        after = body["logs"].get("timestamp", {}).get("after_", "")
        found = [r for r in self.records if r["timestamp"] >= after]
        found.sort(key=lambda record: record["timestamp"])
        return 200, found[body["offset"] : body["offset"] + body["limit"]]

    def add(self, second: int, count: int = 1) -> None:
        for _ in range(count):
            time = f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}+00:00"
            self.records.append({"id": str(len(self.records)), "timestamp": time})


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture
def log(server: FakeServer) -> LogReader:
    return LogReader(PrefectApi(f"http://127.0.0.1:{server.server_port}/api"), "run")


def ids(log: LogReader) -> list[str]:
    return [record["id"] for record in log.read()]


def test_each_record_is_given_once(server: FakeServer, log: LogReader) -> None:
    server.add(1, 3)
    assert ids(log) == ["0", "1", "2"]
    assert ids(log) == []
    server.add(1)  # of the same second
    server.add(2)
    assert ids(log) == ["3", "4"]


def test_more_than_a_page_is_given_whole(server: FakeServer, log: LogReader) -> None:
    server.add(1, 2 * LogReader.page + 1)
    assert len(ids(log)) == 2 * LogReader.page + 1
    assert ids(log) == []


def test_a_record_that_arrives_late_is_given_too(server: FakeServer, log: LogReader) -> None:
    server.add(60)
    assert ids(log) == ["0"]
    server.add(55)  # another process, whose batch took longer
    assert ids(log) == ["1"]


def test_only_the_end_of_a_long_log_is_read_again(server: FakeServer, log: LogReader) -> None:
    server.add(1)
    server.add(600)
    assert ids(log) == ["0", "1"]
    server.add(2)  # too old to be looked for
    assert ids(log) == []


def test_a_busy_server_is_asked_again(server: FakeServer, log: LogReader) -> None:
    server.add(1)
    server.failures = [(503, {"exception_message": "Service Unavailable"})] * 2
    assert ids(log) == ["0"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"detail": "Validation failed for field 'seeds[0]'"}, r"seeds\[0\].*\(409\)"),
        ({"exception_detail": [{"msg": "too short"}]}, r"too short.*\(409\)"),
    ],
)
def test_a_refusal_is_an_error_with_the_server_s_reason(
    server: FakeServer, log: LogReader, content: Any, said: str
) -> None:
    server.failures = [(409, content)]
    with pytest.raises(ApiError, match=said):
        log.read()


def test_a_server_that_is_away_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        PrefectApi("http://127.0.0.1:1/api").state("run")
