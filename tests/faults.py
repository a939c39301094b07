"""A project with the services of `make up`, of which anything is killed while its runs compute."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from infra import service_definitions, supervisor
from infra.deployments import DEPLOYMENT
from infra.prefect_api import FINAL, ApiError
from tests.integration.conftest import Project
from tests.ray_jobs import events_of, session, wait_for

ASK = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
names = {e.name: e.experiment_id for e in client.search_experiments()}
found = [
    {
        "experiment": name,
        "run": run.info.run_name,
        "status": run.info.status,
        "steps": {
            key: [m.step for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        },
        "images": len(client.list_artifacts(run.info.run_id, "images")),
    }
    for name in ("dxai", "dxai-training")
    for run in client.search_runs([names[name]])
]
json.dump(found, sys.stdout)
"""


class Cluster:
    """A project with its services, of a cluster or of one user, and its runs."""

    def __init__(self, project: Project, cluster: bool = True) -> None:
        self.project = project
        self.stack = supervisor.Stack(project.root, cluster)
        self.runs: list[str] = []

    def run(self, parameters: dict[str, Any] | None = None) -> str:
        """Start a run of the deployment; returns its id."""
        self.runs.append(self.project.api.run(DEPLOYMENT, parameters or {})["id"])
        return self.runs[-1]

    # ------------------------------------------------------------------------------- processes
    def processes(self) -> dict[int, str]:
        """Map the ids of all its processes to their commands, also of Ray's, which work elsewhere.

        They are in the sessions of those that work in its folder.
        """
        found, leaders = self.project.processes(), set[int]()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                leaders.add(os.getsid(pid))
        for leader in leaders - {os.getsid(0)}:
            found |= session(leader)
        return found

    def kill(self, name: str) -> None:
        """Kill -9 a service with all its processes."""
        found = supervisor.running(self.stack, name)
        assert found is not None, name
        kill_all(session(found["pid"]))
        wait_for(lambda: supervisor.running(self.stack, name) is None, f"the end of {name}")

    def kill_process(self, command: str) -> None:
        """Kill -9 the process in whose command these words are, and no other."""
        (pid,) = [p for p, c in self.project.processes().items() if command in c]
        os.kill(pid, signal.SIGKILL)

    def up(self) -> str:
        """Run `make up` again, with CLUSTER=1 if it is one; returns its output."""
        done = self.project.local("up", *(["--cluster"] if self.stack.cluster else []))
        assert done.returncode == 0, done.stdout
        return done.stdout

    def services(self) -> tuple[str, ...]:
        return service_definitions.names(self.stack)

    # ------------------------------------------------------------------------------- what it shows
    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of the decomposition's training."""
        files = self.project.root.glob(".work/checkpoints/decompose-*/events.jsonl")
        return [event for file in files for event in events_of(file, kind)]

    def step(self) -> int:
        """Return the last reported step."""
        return max((row["step"] for row in self.events("row")), default=0)

    def trains_on(self, why: str) -> None:
        """Wait until the training reports further steps."""
        now = self.step()
        wait_for(lambda: self.step() > now, lambda: f"training after {why}: {self.said()}", 240)

    def trains_again(self, count: int) -> None:
        """Wait until the training has started for the `count`th time and reports steps."""
        wait_for(
            lambda: len(self.events("start")) >= count, lambda: f"start {count}: {self.said()}", 300
        )
        self.trains_on(f"start {count}")

    def state(self, run: str) -> dict[str, Any] | None:
        """Return the state of a run; None if the server does not answer."""
        try:
            return self.project.api.state(run)
        except (OSError, ApiError):
            return None

    def ends(self, run: str, seconds: float = 600) -> dict[str, Any]:
        """Wait for the end of a run, and return its state."""

        def final() -> dict[str, Any] | None:
            found = self.state(run)
            return found if found and found["type"] in FINAL else None

        return wait_for(final, lambda: f"the end of run {run}: {self.said()}", seconds, 0.5)

    def said(self) -> str:
        """Return the worker's log, with the lines of all runs that the server may have missed."""
        return self.stack.log("worker").read_text(errors="replace")[-4000:]

    def ran(self) -> collections.Counter[str]:
        """Count how often each stage started."""
        text = self.stack.log("worker").read_text(errors="replace")
        return collections.Counter(re.findall(r"Running stage '([^']+)'", text))

    def in_mlflow(self) -> list[dict[str, Any]]:
        """Return the runs in MLflow: experiment, name, status, steps of each metric, images."""
        command = [sys.executable, "-c", ASK, self.stack.tracking_uri]
        asked = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(asked.stdout)


def kill_all(pids: Iterable[int]) -> None:
    """Kill -9 processes, some of which may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
