"""`python -m infra.local up | down | status | env | benchmark`: a run on one machine.

`up --cluster` starts the processes of a cluster on it (`infra.service_definitions`). `benchmark` is
`prefect deployment run dxai/full-benchmark --watch` with everything that it needs started before
and stopped after; what ran already is used and left running.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from dxai.config.schema import ParamsError, choose, profile_names
from dxai.reporting.text import format_table
from infra import deployments, service_definitions, supervisor
from infra.deployments import DEPLOYMENT
from infra.prefect_api import FINAL, ApiError, Log, Prefect
from infra.supervisor import POOL, Place, ServiceError

PAGES = ("prefect", "mlflow")
"""Services that a browser can look at."""
CLIENT = re.compile("PREFECT_API_URL|MLFLOW_TRACKING_URI|RAY_|AWS_|PGPASSFILE")
"""Variables by which programs that are started by hand find the services."""
CANCEL_TIMEOUT = 30.0
LOG_DELAY = 1.5
"""Seconds after which the last lines of a run have reached the server (prefect.toml: 1)."""
ROUTINE = re.compile(
    "Finished in state Completed|Running 1 deployment pull|Executing deployment step|"
    "Deployment step '|All deployment steps|Worker '|Data and pipelines are up to date"
)
"""Lines of the log that say nothing to who waits."""


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


# ------------------------------------------------------------------------------------ services
def up(place: Place, wanted: tuple[str, ...], started: list[str]) -> Prefect:
    """Start what does not run yet, noting it in `started`, and register the deployment."""
    supervisor.start_all(
        place, [service_definitions.SERVICES[name] for name in wanted], started, say
    )
    deployments.deploy(place, say)  # the worker may have run already
    if place.cluster and "mlflow" in started:
        deployments.settle(place, say)
    return deployments.server_of(place)


def down(place: Place, wanted: Sequence[str]) -> None:
    """Stop services, those that need others first."""
    for name in sorted(wanted, key=service_definitions.CLUSTER.index, reverse=True):
        if supervisor.stop(place, service_definitions.SERVICES[name]):
            say(f"{name}: stopped")


# ------------------------------------------------------------------------------------ a run
def benchmark(place: Place, parameters: dict[str, Any]) -> int:
    """One run of the deployment, its log shown as it grows; returns the exit code."""
    began = time.monotonic()
    started: list[str] = []
    try:
        server = up(place, service_definitions.FOR_A_RUN, started)
        run = server.run(DEPLOYMENT, parameters)
        say(f"run {run['name']}: {place.url('prefect')}/runs/flow-run/{run['id']}")
        try:
            state = watch(place, server, run["id"])
        except ServiceError:  # nobody is left to cancel it
            raise
        except BaseException:
            cancel(server, run)
            raise
        say(f"run {run['name']}: {state['name']}" + (f": {state['message'] or ''}").rstrip(": "))
        has_table = server.has_artifact(run["id"], "table-1")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping takes seconds; let it finish
        down(place, started)
    if has_table:  # a run in which one method failed still has the others
        conclude(place, time.monotonic() - began)
    return 0 if state["type"] == "COMPLETED" else 1


def watch(place: Place, server: Prefect, run: str) -> dict[str, Any]:
    """Show a run's log until it ends; returns its last state."""
    log = Log(server, run)
    waiting = False
    while True:
        try:
            state = server.state(run)
            if ended := state["type"] in FINAL:
                time.sleep(LOG_DELAY)
            for record in log.new():
                show(record)
            if state["type"] == "SCHEDULED" and not waiting:
                others = server.unfinished(POOL, ("PENDING", "RUNNING", "CANCELLING"))
                for other in [other for other in others if other["id"] != run]:
                    waiting = True
                    say(f"run {other['name']} has this folder; this one starts after it")
        except OSError as error:  # slow on busy cores, or gone?
            supervisor.check(place, "prefect")
            say(f"the Prefect server is slow to answer: {error}")
            continue
        if ended:
            return state
        supervisor.check(place, "worker")
        time.sleep(1)


def show(record: dict[str, Any]) -> None:
    """One record: its local time and text; of an error's traceback only the first line."""
    if ROUTINE.match(record["message"]):
        return
    clock = datetime.fromisoformat(record["timestamp"]).astimezone().strftime("%H:%M:%S")
    text = record["message"].rstrip()
    if record["level"] >= 40:
        text = text.split("\nTraceback", 1)[0]
    say(f"{clock} | {text}")


def cancel(server: Prefect, run: dict[str, Any]) -> None:
    """Ask for the end of a run, and wait until nothing of it is left."""
    say(f"run {run['name']}: cancelling")
    try:
        early = server.state(run["id"])["type"] == "SCHEDULED"
        server.set_state(run["id"], "CANCELLED" if early else "CANCELLING", "Stopped by hand.")
        deadline = time.monotonic() + CANCEL_TIMEOUT
        while server.state(run["id"])["type"] not in FINAL and time.monotonic() < deadline:
            time.sleep(0.5)
        say(f"run {run['name']}: {server.state(run['id'])['name']}")
    except (OSError, ApiError) as error:
        say(f"run {run['name']}: could not be cancelled: {error}")


def conclude(place: Place, seconds: float) -> None:
    """Table 1, what is claimed of all tables, and where everything is."""
    tables = place.root / "results/tables"
    say("\n" + format_table(tables / "table1.csv"))
    if len((tables / "claims.csv").read_text().splitlines()) > 1:
        say("\n" + format_table(tables / "claims.csv"))
    say(f"\nreport   {place.root / 'results/report.html'}")
    say(f"tables   {tables}")
    before = "" if supervisor.running(place, "mlflow") else "make up, then "
    say(f"MLflow   {before}{place.url('mlflow')} (data: {place.tracking_uri})")
    say(f"done in  {seconds:.0f} s")


# ------------------------------------------------------------------------------------ commands
def status(place: Place) -> None:
    """What runs, and where."""
    for name in service_definitions.names(place):
        found = supervisor.running(place, name)
        where = f", {supervisor.HOST}:{found['port']}" if found and found["port"] else ""
        where = where.replace(", ", ", http://") if name in PAGES else where
        say(f"{name}: " + (f"running, process {found['pid']}{where}" if found else "stopped"))


def environment(place: Place) -> None:
    """Lines for a shell: `eval "$(python -m infra.local env)"`."""
    for name, value in sorted(place.environment().items()):
        if CLIENT.match(name) and value != os.environ.get(name):
            say(f"export {name}={shlex.quote(value)}")


def start_all(place: Place) -> None:
    """`up`, and how to go on."""
    began = time.monotonic()
    started: list[str] = []
    try:
        server = up(place, service_definitions.names(place), started)
    except BaseException:
        down(place, started)
        raise
    say(f"everything is up after {time.monotonic() - began:.0f} s")
    say(f"Prefect  {place.url('prefect')}")
    say(f"MLflow   {place.url('mlflow')}")
    prefix = ""
    if place.port("prefect") != supervisor.PORTS["prefect"][1]:
        prefix = f"PREFECT_API_URL={server.url} "
    say(f"run      {prefix}prefect deployment run {DEPLOYMENT} --watch")
    if place.cluster:
        say('by hand  eval "$(python -m infra.local env)", then dvc repro, dxai compare, ..')


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start Prefect's server and worker and MLflow's server")
    start.add_argument(
        "--cluster",
        action="store_true",
        help="on PostgreSQL, with an S3 store and two nodes of Ray (needs Debian's postgresql)",
    )
    commands.add_parser("down", help="stop them")
    commands.add_parser("status", help="say what runs")
    commands.add_parser("env", help="print the variables by which other programs find them")
    run = commands.add_parser("benchmark", help="run everything and print Table 1")
    run.add_argument("--profile", help="a profile of params.yaml (default: what it says)")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    if not (root / "prefect.yaml").exists():
        parser.error(f"{root} holds no prefect.yaml; run in the project's folder")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started with `&`
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, terminate)
    try:
        place = service_definitions.find(root, getattr(options, "cluster", False))
        if options.command == "up":
            start_all(place)
        elif options.command == "down":
            down(place, service_definitions.CLUSTER)
        elif options.command == "status":
            status(place)
        elif options.command == "env":
            environment(place)
        else:
            with supervisor.alone(place, "benchmark"):
                return benchmark(place, selection(place, options.profile))
    except KeyboardInterrupt:
        say("interrupted: what is finished is kept, run again to go on")
        return 130
    except (ServiceError, ApiError, ParamsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def selection(place: Place, profile: str | None) -> dict[str, Any]:
    """Parameters of the run; an unknown profile is refused before anything starts."""
    if profile is None:
        return {}
    names = profile_names(place.root / "params.yaml")
    return {"profile": choose("profile", profile, names)}


def terminate(signum: int, frame: FrameType | None) -> None:
    """SIGTERM and a closed terminal, too, cancel the run and stop what was started."""
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
