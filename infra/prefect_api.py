"""The calls of Prefect's REST API that the launcher makes.

Prefect's own client does not suit it: importing takes 1.5 s even if a run has nothing to do;
address, key and proxy come from the user's settings, perhaps for another server; usage is reported
by default; and a lost server is retried for minutes, when the launcher must report it at once.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
"""Final states of a run."""
BUSY = (429, 503)
"""Status codes of a server that could not reach its database and did nothing."""
BUSY_TIMEOUT = 30.0


class ApiError(RuntimeError):
    """The server refused a request; the text is its reason."""


@dataclass
class PrefectApi:
    """The REST API of a Prefect server, at an address that ends in `/api`."""

    url: str
    login: str = ""
    """`user:password`, where the server wants one."""

    def call(
        self, path: str, body: dict[str, Any] | list[Any] | None = None, method: str | None = None
    ) -> Any:
        """Send a request, by default a POST if it has a body and a GET otherwise.

        Raises `ApiError` if the server refuses it, `OSError` if it does not answer.
        """
        request = urllib.request.Request(
            f"{self.url}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers=self._headers(),
            method=method,
        )
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code not in BUSY or time.monotonic() > deadline:
                    reason = _reason(error.read().decode(errors="replace"))
                    raise ApiError(f"{reason} ({error.code})") from None
            except (http.client.HTTPException, UnicodeDecodeError) as error:
                raise ConnectionError(f"{self.url}: no Prefect server: {error!r}") from None
            time.sleep(0.5)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self.login:
            code = base64.b64encode(self.login.encode()).decode()
            headers["Authorization"] = f"Basic {code}"
        return headers

    def deployment(self, name: str) -> dict[str, Any] | None:
        """Return a deployment by `<flow>/<name>`, or None."""
        try:
            return self.call(f"deployments/name/{name}")
        except ApiError:
            return None

    def ensure_pool(self, name: str, queues: Sequence[str], limit: int) -> None:
        """Create a process work pool unless it exists; it runs `limit` flows at a time.

        Its `queues` are served in this order.
        """
        try:
            pool = self.call(f"work_pools/{name}")
        except ApiError:
            pool = self.call("work_pools/", {"name": name, "type": "process"})
        if pool["concurrency_limit"] is None:
            self.call(f"work_pools/{name}", {"concurrency_limit": limit}, "PATCH")
        known = {queue["name"] for queue in self.call(f"work_pools/{name}/queues/filter", {})}
        for priority, queue in enumerate(queues, 1):
            if queue not in known:
                self.call(f"work_pools/{name}/queues", {"name": queue, "priority": priority})

    def workers_online(self, pool: str) -> bool:
        """Whether a worker of the pool has reported recently."""
        workers = self.call(f"work_pools/{pool}/workers/filter", {})
        return any(worker["status"] == "ONLINE" for worker in workers)

    def run(self, deployment: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Schedule a run of a deployment for now; the server checks the parameters."""
        found = self.deployment(deployment)
        if found is None:
            raise ApiError(f"no deployment {deployment}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.call(f"deployments/{found['id']}/create_flow_run", body)

    def state(self, run: str) -> dict[str, Any]:
        """Return `type`, `name` and `message` of a run's state."""
        return self.call(f"flow_runs/{run}")["state"]

    def set_state(self, run: str, kind: str, message: str, force: bool = False) -> None:
        """Propose a state, which the server may refuse unless it is forced."""
        body = {"state": {"type": kind, "message": message}, "force": force}
        self.call(f"flow_runs/{run}/set_state", body)

    def has_artifact(self, run: str, key: str) -> bool:
        wanted = {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}
        return bool(self.call("artifacts/filter", {"artifacts": wanted}))

    def unfinished(self, pool: str, states: tuple[str, ...]) -> list[dict[str, Any]]:
        """List the runs of a work pool in one of the states."""
        body = {
            "work_pools": {"name": {"any_": [pool]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
        }
        return self.call("flow_runs/filter", body)

    def ended_before(self, when: datetime) -> tuple[int, datetime | None]:
        """Count the runs that ended before a time; also returns when the oldest ended."""
        wanted = {"flow_runs": _ended(when)}
        first = {**wanted, "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
        found = self.call("flow_runs/filter", first)
        oldest = datetime.fromisoformat(found[0]["end_time"]) if found else None
        return int(self.call("flow_runs/count", wanted)), oldest

    def delete_ended_before(self, when: datetime) -> None:
        """Delete the runs that ended before a time, with their task runs and logs."""
        while self.call("flow_runs/bulk_delete", {"flow_runs": _ended(when)})["deleted"]:
            pass


def _ended(when: datetime) -> dict[str, Any]:
    return {"end_time": {"before_": when.isoformat()}, "state": {"type": {"any_": list(FINAL)}}}


class LogReader:
    """The growing log of a run, by its id."""

    page = 200
    overlap = timedelta(seconds=10)
    """Largest delay between the timestamp and the arrival of another process's record."""

    def __init__(self, api: PrefectApi, run: str) -> None:
        self.api, self.run = api, run
        self.seen: set[str] = set()
        self.last: datetime | None = None

    def read(self) -> list[dict[str, Any]]:
        """Return the records that are new, sorted by timestamp."""
        wanted: dict[str, Any] = {"flow_run_id": {"any_": [self.run]}}
        if self.last is not None:
            wanted["timestamp"] = {"after_": (self.last - self.overlap).isoformat()}
        body = {"logs": wanted, "sort": "TIMESTAMP_ASC", "limit": self.page}
        new: list[dict[str, Any]] = []
        for offset in itertools.count(0, self.page):
            records = self.api.call("logs/filter", body | {"offset": offset})
            new += [record for record in records if record["id"] not in self.seen]
            if len(records) < self.page:
                break
        self.seen.update(record["id"] for record in new)
        times = [datetime.fromisoformat(record["timestamp"]) for record in new]
        self.last = max([*times, *([self.last] if self.last else [])], default=None)
        return new


def _reason(text: str) -> str:
    try:
        content = json.loads(text)
    except ValueError:
        return text
    detail = content.get("detail") or content.get("exception_detail") or content
    return detail if isinstance(detail, str) else json.dumps(detail)
