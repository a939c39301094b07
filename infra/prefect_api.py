"""The few calls of Prefect's REST interface that a launcher needs.

Importing Prefect's own client takes seconds, which a run with nothing to do cannot spare.
"""

from __future__ import annotations

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
"""States in which a run stays."""


BUSY = (429, 503)
"""Answers of a server that cannot reach its database just now; nothing was done."""
BUSY_TIMEOUT = 30.0


class ApiError(RuntimeError):
    """The server refused a request; the text is its reason."""


@dataclass
class Prefect:
    """A Prefect server.

    Attributes
    ----------
    url : str
        Of the interface, ending in `/api`.
    """

    url: str

    def call(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """GET, or POST if there is a body, unless `method` is another one.

        Raises
        ------
        ApiError
            If the server refuses.
        OSError
            If it does not answer.
        """
        request = urllib.request.Request(
            f"{self.url}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
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
            time.sleep(0.5)

    def deployment(self, name: str) -> dict[str, Any] | None:
        """A deployment by `<flow>/<name>`, None if there is none."""
        try:
            return self.call(f"deployments/name/{name}")
        except ApiError:
            return None

    def ensure_pool(self, name: str, queues: Sequence[str]) -> None:
        """Create a process work pool unless there is one, for one run at a time.

        Runs wait in `queues`, those of the first before those of the second.
        """
        try:
            pool = self.call(f"work_pools/{name}")
        except ApiError:
            pool = self.call("work_pools/", {"name": name, "type": "process"})
        if pool["concurrency_limit"] is None:
            self.call(f"work_pools/{name}", {"concurrency_limit": 1}, "PATCH")
        known = {queue["name"] for queue in self.call(f"work_pools/{name}/queues/filter", {})}
        for priority, queue in enumerate(queues, 1):
            if queue not in known:
                body = {"name": queue, "priority": priority}
                self.call(f"work_pools/{name}/queues", body)

    def workers_online(self, pool: str) -> bool:
        """Whether a worker of the pool has reported lately."""
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
        """`type`, `name` and `message` of a run's state."""
        return self.call(f"flow_runs/{run}")["state"]

    def set_state(self, run: str, kind: str, message: str) -> None:
        """Propose a state for a run."""
        self.call(f"flow_runs/{run}/set_state", {"state": {"type": kind, "message": message}})

    def has_artifact(self, run: str, key: str) -> bool:
        """Whether a run has published an artifact."""
        wanted = {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}
        return bool(self.call("artifacts/filter", {"artifacts": wanted}))

    def unfinished(self, pool: str, states: tuple[str, ...]) -> list[dict[str, Any]]:
        """Runs of a work pool's deployments that are in one of the states."""
        body = {
            "work_pools": {"name": {"any_": [pool]}},
            "flow_runs": {"state": {"type": {"any_": list(states)}}},
        }
        return self.call("flow_runs/filter", body)


class Log:
    """The log of one run, as it grows.

    Parameters
    ----------
    server : Prefect
        Where to read.
    run : str
        Id of the run.
    """

    page = 200
    overlap = timedelta(seconds=10)
    """How much later than its time a record of another process may arrive."""

    def __init__(self, server: Prefect, run: str) -> None:
        self.server, self.run = server, run
        self.seen: set[str] = set()
        self.last: datetime | None = None

    def new(self) -> list[dict[str, Any]]:
        """Records that were not given yet, in the order of their time."""
        wanted: dict[str, Any] = {"flow_run_id": {"any_": [self.run]}}
        if self.last is not None:
            wanted["timestamp"] = {"after_": (self.last - self.overlap).isoformat()}
        body = {"logs": wanted, "sort": "TIMESTAMP_ASC", "limit": self.page}
        found: list[dict[str, Any]] = []
        for offset in itertools.count(0, self.page):
            records = self.server.call("logs/filter", body | {"offset": offset})
            found += [record for record in records if record["id"] not in self.seen]
            if len(records) < self.page:
                break
        self.seen.update(record["id"] for record in found)
        times = [datetime.fromisoformat(record["timestamp"]) for record in found]
        self.last = max([*times, *([self.last] if self.last else [])], default=None)
        return found


def _reason(text: str) -> str:
    """What a refusal says, without its wrapping."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    detail = content.get("detail") or content.get("exception_detail") or content
    return detail if isinstance(detail, str) else json.dumps(detail)
