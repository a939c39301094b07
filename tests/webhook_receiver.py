"""A webhook on loopback that keeps the messages sent to it."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hook(ThreadingHTTPServer):
    """Keep the messages received, after refusing some."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[dict[str, Any]] = []
        self.failures: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = self.server.failures.pop(0) if self.server.failures else 200
        if code == 200:
            self.server.got.append(json.loads(body))
        self.send_response(code)
        self.end_headers()
        self.wfile.write(self.path.encode())  # as some do, with the token in it

    def log_message(self, *_: object) -> None:
        pass
