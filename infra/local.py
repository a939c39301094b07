"""`python -m infra.local up | down | status | benchmark [--profile NAME]`: a run on one machine.

`benchmark` is `prefect deployment run dxai/full-benchmark --watch` with everything that it needs
started before and stopped after; what ran already is used and left running.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from dxai.params import ParamsError, choose, profile_names
from dxai.plain_tables import format_table
from infra import services
from infra.prefect_api import FINAL, ApiError, Log, Prefect
from infra.services import POOL, QUEUES, Place, ServiceError

DEPLOYMENT = "dxai/full-benchmark"
ALL = ("prefect", "worker", "mlflow")
FOR_A_RUN = ("prefect", "worker")
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
def up(place: Place, names: tuple[str, ...], started: list[str]) -> Prefect:
    """Start what does not run yet, noting it in `started`, and register the deployment."""
    server = Prefect(f"{place.url('prefect')}/api")
    for name in names:
        if name != "worker" and services.start(place, name):
            started.append(name)
    services.wait(place, "prefect", f"{server.url}/health", say)
    server.ensure_pool(POOL, QUEUES)
    if services.start(place, "worker"):
        started.append("worker")
        clear_dead_runs(server)
    deploy(place, server)
    if "mlflow" in names:
        services.wait(place, "mlflow", f"{place.url('mlflow')}/health", say)
    return server


def deploy(place: Place, server: Prefect) -> None:
    """Register what prefect.yaml says, unless that was done with the very same files."""
    sources = [place.root / "prefect.yaml", place.root / "dxai/params.py"]
    sources += sorted((place.root / "flows").glob("*.py"))
    digest = hashlib.sha256(str(place.root).encode())
    for source in sources:
        digest.update(source.read_bytes())
    stamp = place.work / "deployed"
    known = stamp.read_text() if stamp.exists() else ""
    if known == digest.hexdigest() and server.deployment(DEPLOYMENT):
        return
    say(f"deployment {DEPLOYMENT}: registering")
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=place.root,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ServiceError(f"prefect deploy failed:\n{done.stdout}{done.stderr}")
    stamp.write_text(digest.hexdigest())


def clear_dead_runs(server: Prefect) -> None:
    """End in the server's book the runs whose worker was killed: nothing of them is left."""
    for run in server.unfinished(POOL, ("PENDING", "RUNNING", "CANCELLING")):
        say(f"run {run['name']}: its worker is gone, marked as crashed")
        server.set_state(run["id"], "CRASHED", "The worker was gone.")


def down(place: Place, names: list[str]) -> None:
    """Stop services, those that need others first."""
    for name in sorted(names, key=("worker", "mlflow", "prefect").index):
        if services.stop(place, name):
            say(f"{name}: stopped")


# ------------------------------------------------------------------------------------ a run
def benchmark(place: Place, parameters: dict[str, Any]) -> int:
    """One run of the deployment, its log shown as it grows; returns the exit code."""
    began = time.monotonic()
    started: list[str] = []
    try:
        server = up(place, FOR_A_RUN, started)
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
        except OSError as error:  # slow on busy cores, or gone?
            services.check(place, "prefect")
            say(f"the Prefect server is slow to answer: {error}")
            continue
        if ended:
            return state
        if state["type"] == "SCHEDULED" and not waiting:
            for other in server.unfinished(POOL, ("PENDING", "RUNNING", "CANCELLING")):
                waiting = True
                say(f"run {other['name']} has this folder; this one starts when that has ended")
        services.check(place, "worker")
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
    before = "" if services.running(place, "mlflow") else "make up, then "
    say(f"MLflow   {before}{place.url('mlflow')} (data: {place.tracking_uri})")
    say(f"done in  {seconds:.0f} s")


# ------------------------------------------------------------------------------------ commands
def status(place: Place) -> None:
    """What runs, and where."""
    for name in ALL:
        found = services.running(place, name)
        page = f", {place.url(name)}" if found and name in services.PORTS else ""
        say(f"{name}: " + (f"running, process {found['pid']}{page}" if found else "stopped"))


def start_all(place: Place) -> None:
    """`up`, and how to go on."""
    began = time.monotonic()
    started: list[str] = []
    try:
        server = up(place, ALL, started)
        while not server.workers_online(POOL):
            services.check(place, "worker")
            time.sleep(0.2)
    except BaseException:
        down(place, started)
        raise
    say(f"everything is up after {time.monotonic() - began:.0f} s")
    say(f"Prefect  {place.url('prefect')}")
    say(f"MLflow   {place.url('mlflow')}")
    prefix = ""
    if place.port("prefect") != services.PORTS["prefect"][1]:
        prefix = f"PREFECT_API_URL={server.url} "
    say(f"run      {prefix}prefect deployment run {DEPLOYMENT} --watch")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the Prefect server and worker and the MLflow server")
    commands.add_parser("down", help="stop them")
    commands.add_parser("status", help="say what runs")
    run = commands.add_parser("benchmark", help="run everything and print Table 1")
    run.add_argument("--profile", help="a profile of params.yaml (default: what it says)")
    options = parser.parse_args(arguments)
    place = Place(Path.cwd())
    if not (place.root / "prefect.yaml").exists():
        parser.error(f"{place.root} holds no prefect.yaml; run in the project's folder")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started with `&`
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, terminate)
    try:
        if options.command == "up":
            start_all(place)
        elif options.command == "down":
            down(place, list(ALL))
        elif options.command == "status":
            status(place)
        else:
            with services.alone(place, "benchmark"):
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
