"""The part of the Hugging Face hub's HTTP interface that uploads and downloads models, on loopback.

The client is the real one. Files are sent whole in the commit, as the hub takes small ones; the
hub's storage for large files (LFS, Xet) is left out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Keeps repositories: files by name, and the last commit's message and token."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, dict[str, bytes]] = {}
        self.cards: list[str] = []
        self.message, self.token = "", ""


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, _, repo_id, action = self._names()
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            self.server.repos.setdefault(repo_id, {})
            self._answer({"url": f"{self.server.url}/{repo_id}", "id": repo_id})
        elif self.path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            self._answer({"warnings": [], "errors": []})
        elif action == "preupload":
            files = json.loads(body)["files"]
            said = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": f["path"], **said} for f in files]})
        elif action == "commit":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    self.server.message = value["summary"]
                else:
                    content = base64.b64decode(value["content"])
                    self.server.repos[repo_id][value["path"]] = content
            self.server.token = self.headers["Authorization"]
            url = f"{self.server.url}/{repo_id}/commit/{COMMIT}"
            self._answer({"commitUrl": url, "commitOid": COMMIT})
        else:
            self._refuse()

    def do_GET(self) -> None:
        kind, path, repo_id, action = self._names()
        files = self.server.repos.get(repo_id)
        if files is None or (kind == "file" and path not in files):
            self._refuse()
        elif kind == "file":
            self._send(files[path], "application/octet-stream")
        elif action == "tree":
            self._answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": oid(content)}
                    for name, content in files.items()
                ]
            )
        else:
            self._answer({"id": repo_id, "sha": COMMIT, "siblings": [], "private": False})

    do_HEAD = do_GET

    def _names(self) -> tuple[str, str, str, str]:
        """Return whether a file is asked for, which, of which repository, and what to do."""
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return "file", found[2], found[1], ""
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+).*)?", path)
        return "", "", found[1] if found else "", (found[2] or "") if found else ""

    def _answer(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, content: bytes, kind: str, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        headers |= {"X-Repo-Commit": COMMIT, "ETag": f'"{oid(content)}"', "Content-Type": kind}
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self) -> None:
        self._send(b"{}", "application/json", 404, X_Error_Code="RepoNotFound")

    def log_message(self, *_: object) -> None:
        pass


def oid(content: bytes) -> str:
    """The hash by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
