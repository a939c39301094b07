"""`python -m infra.local up | down | status | env | benchmark`: run everything on one machine.

`up --cluster` starts the services of a cluster on it (`infra.service_definitions`). `benchmark`
starts the services that `prefect deployment run dxai/full-benchmark --watch` needs, runs that
deployment, and stops the services that did not run before.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil

from dxai.config.profiles import profile_names
from dxai.config.settings import ParamsError, choose
from dxai.paths import Paths
from dxai.reporting.text import format_table
from dxai.tracking import provenance
from dxai.utils import addresses, terminal
from dxai.utils.errors import is_told, one_line
from dxai.utils.terminal import ENDS
from infra import deployments, service_definitions, supervisor
from infra.deployments import DEPLOYMENT, POOL, RUNS
from infra.ports import HOST
from infra.prefect_api import FINAL, ApiError, LogReader, PrefectApi
from infra.supervisor import ServiceError, Stack

WEB_PAGES = ("prefect", "mlflow")
"""Services with a web page."""
CLIENT_VARIABLES = re.compile("PREFECT_API_URL|MLFLOW_(TRACKING|BACKEND_STORE)_URI|RAY_|AWS_|PG")
"""Variables that tell other programs where the services are."""
SHELL = dict(os.environ)
"""The environment that the user's own commands will have."""
CANCEL_TIMEOUT = 30.0
LOG_DELAY = 1.5
"""Seconds until the server has the last lines of a run (prefect.toml: 1)."""
WATCH_SECONDS = 2.0
"""Pause between two looks at a run; each takes the server some 20 ms of the run's own cores."""
ROUTINE = re.compile(
    "Finished in state Completed|Running 1 deployment pull|Executing deployment step|"
    "Deployment step '|All deployment steps|Worker '|Data and pipelines are up to date"
)
"""Routine lines of the log, not shown."""


class Output:
    """What the launcher prints; without a reader it ends, but not in the middle of cleaning up."""

    cleaning_up = False


def echo(text: str) -> None:
    """Print and flush; exit if the terminal is closed, or the reader of the pipe has ended."""
    try:
        print(text, flush=True)
    except OSError:
        terminal.quiet()
        if not Output.cleaning_up:
            raise SystemExit(128 + signal.SIGPIPE) from None


class EchoHandler(logging.Handler):
    """Log through `echo`; the handlers of `logging` would print an error and go on."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(record.getMessage())


def clean_up() -> None:
    """Let neither a signal nor a closed terminal stop what follows, which takes seconds."""
    Output.cleaning_up = True
    for signum in (signal.SIGINT, *ENDS):
        signal.signal(signum, signal.SIG_IGN)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Hold signals back during the block, which starts no program."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, *ENDS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ------------------------------------------------------------------------------------ services
def up(stack: Stack, names: tuple[str, ...], started: list[str]) -> PrefectApi:
    """Start services, add those that did not run to `started`, and register the deployments."""
    used = store_of_worker(stack)
    if stack.given_store and stack.cluster:
        where = addresses.redacted(stack.given_store)
        echo(f"MLflow: not {where} (MLFLOW_TRACKING_URI): a cluster logs to its own server")
    elif used == stack.given_store:
        echo(f"MLflow: runs are logged to {addresses.redacted(used)} (MLFLOW_TRACKING_URI)")
        names = tuple(name for name in names if name != "mlflow")  # it would show other runs
    supervisor.start_all(stack, [service_definitions.SERVICES[name] for name in names], started)
    if used != stack.tracking_uri:
        where = addresses.redacted(used)
        echo(f"MLflow: the worker that runs already logs to {where}; `make down` changes that")
    deployments.name_server(stack)
    deployments.deploy(stack)  # not done yet if the worker ran already
    if stack.cluster and "mlflow" in started:
        deployments.send_missed_metrics(stack)
    return deployments.api_of(stack)


def store_of_worker(stack: Stack) -> str:
    """Return the MLflow store of the running worker, else the one that it would get."""
    found = supervisor.running(stack, "worker")
    try:
        environment = psutil.Process(found["pid"]).environ() if found else {}
    except psutil.Error:
        environment = {}
    return environment.get("MLFLOW_TRACKING_URI", stack.tracking_uri)


def down(stack: Stack, names: Sequence[str]) -> None:
    """Stop services, each before those it needs."""
    if "prefect" in names:
        deployments.forget_server(stack)
    for name in sorted(names, key=service_definitions.CLUSTER.index, reverse=True):
        if supervisor.stop(stack, service_definitions.SERVICES[name]):
            echo(f"{name}: stopped")


# ------------------------------------------------------------------------------------ a run
def benchmark(stack: Stack, parameters: dict[str, Any]) -> int:
    """Run the deployment, showing its log; returns the exit code."""
    began = time.monotonic()
    started: list[str] = []
    try:
        api = up(stack, service_definitions.FOR_A_RUN, started)
        store = store_of_worker(stack)
        run: dict[str, Any] | None = None
        try:
            with undisturbed():  # a run that nobody knows would not be cancelled
                run = api.run(DEPLOYMENT, parameters)
            echo(f"run {run['name']}: {stack.url('prefect')}/runs/flow-run/{run['id']}")
            state = watch(stack, api, run["id"])
        except ServiceError:  # the server or the worker has ended: nothing to cancel
            raise
        except BaseException:
            if run is not None:
                Output.cleaning_up = True
                cancel(api, run)
            raise
        echo(f"run {run['name']}: {state['name']}" + (f": {state['message'] or ''}").rstrip(": "))
        has_table = api.has_artifact(run["id"], "table-1")
    finally:
        clean_up()
        down(stack, started)
    if has_table:  # a run in which one method failed still has the others' results
        print_results(stack, store, time.monotonic() - began)
    return 0 if state["type"] == "COMPLETED" else 1


def watch(stack: Stack, api: PrefectApi, run: str) -> dict[str, Any]:
    """Show a run's log until it ends; returns its final state."""
    log = LogReader(api, run)
    waiting = False
    while True:
        try:
            state = api.state(run)
            if ended := state["type"] in FINAL:
                time.sleep(LOG_DELAY)
            for record in log.read():
                show(record)
            if state["type"] == "SCHEDULED" and not waiting:
                others = api.unfinished(POOL, ("PENDING", "RUNNING", "CANCELLING"))
                names = [other["name"] for other in others if other["id"] != run]
                if len(names) >= RUNS:
                    waiting = True
                    echo(f"waiting until run {' or '.join(names)} has ended")
        except OSError as error:  # the server is slow, or has ended
            supervisor.check(stack, "prefect")
            echo(f"the Prefect server is slow to answer: {error}")
            continue
        if ended:
            return state
        supervisor.check(stack, "worker")
        time.sleep(WATCH_SECONDS)


def show(record: dict[str, Any]) -> None:
    """Print a log record with its local time, unless it is routine; omit tracebacks."""
    if ROUTINE.match(record["message"]):
        return
    clock = datetime.fromisoformat(record["timestamp"]).astimezone().strftime("%H:%M:%S")
    text = record["message"].rstrip()
    if record["level"] >= logging.ERROR:
        text = text.split("\nTraceback", 1)[0]
    echo(f"{clock} | {text}")


def cancel(api: PrefectApi, run: dict[str, Any]) -> None:
    """Cancel a run, and wait until its processes have ended."""
    echo(f"run {run['name']}: cancelling")
    try:
        scheduled = api.state(run["id"])["type"] == "SCHEDULED"
        api.set_state(run["id"], "CANCELLED" if scheduled else "CANCELLING", "Stopped by hand.")
        deadline = time.monotonic() + CANCEL_TIMEOUT
        while api.state(run["id"])["type"] not in FINAL and time.monotonic() < deadline:
            time.sleep(0.5)
        echo(f"run {run['name']}: {api.state(run['id'])['name']}")
    except (OSError, ApiError) as error:
        echo(f"run {run['name']}: could not be cancelled: {error}")


def print_results(stack: Stack, store: str, seconds: float) -> None:
    """Print Table 1, the paper's claims, and where the results are; `store` is the run's MLflow."""
    paths = Paths(stack.root)
    echo("\n" + format_table(paths.table("table1")))
    if len(paths.table("claims").read_text().splitlines()) > 1:
        echo("\n" + format_table(paths.table("claims")))
    echo(f"\nreport   {paths.report}\ntables   {paths.tables}")
    echo(f"MLflow   {page_of(stack, store)}")
    echo(f"done in  {seconds:.0f} s")


def page_of(stack: Stack, store: str) -> str:
    """Return where to look at the runs in an MLflow store: this folder's page, or the store."""
    if store not in (stack.local_store, stack.url("mlflow")):
        return addresses.redacted(store)
    before = "" if supervisor.running(stack, "mlflow") else "make up, then "
    return f"{before}{stack.url('mlflow')} (data: {store})"


# ------------------------------------------------------------------------------------ commands
def bring_up(stack: Stack, only: str | None = None) -> None:
    """Start every service, or one, and print the next steps."""
    began = time.monotonic()
    started: list[str] = []
    try:
        if only is not None:
            valid = service_definitions.names(stack)
            if only not in valid:
                raise ServiceError(f"--only {only}: no such service; valid are {', '.join(valid)}")
            supervisor.start_all(stack, [service_definitions.SERVICES[only]], started)
            return
        api = up(stack, service_definitions.names(stack), started)
    except BaseException:
        clean_up()
        down(stack, started)
        raise
    echo(f"everything is up after {time.monotonic() - began:.0f} s")
    echo(f"Prefect  {stack.url('prefect')}")
    echo(f"MLflow   {page_of(stack, store_of_worker(stack))}")
    echo(f"run      {shell_prefix(api.url)}prefect deployment run {DEPLOYMENT} --watch")
    if stack.cluster:
        echo('by hand  eval "$(python -m infra.local env)", then dvc repro, dxai compare, ..')


def shell_prefix(url: str) -> str:
    """Return the variables that this shell needs for `prefect` to reach this folder's server."""
    wanted = addresses.direct_loopback(SHELL)
    wanted = {name: value for name, value in wanted.items() if SHELL.get(name) != value}
    if SHELL.get("PREFECT_API_URL", url) != url or "PREFECT_PROFILE" in SHELL:
        wanted["PREFECT_API_URL"] = url
    return "".join(f"{name}={shlex.quote(value)} " for name, value in wanted.items())


def check_folder(root: Path) -> None:
    """Raise `ServiceError`, before anything is written, where no run could work."""
    if "%" in sys.prefix:
        raise ServiceError(
            f"MLflow makes no database where its own path has a %: {sys.prefix}; make the "
            "environment, or the clone, in another folder"
        )
    done = provenance.problem(root)
    if done and not any((folder / ".git").exists() for folder in (root, *root.parents)):
        raise ServiceError(
            f"{root} is no git repository, which DVC needs: clone the project, or run "
            "`git init && git add --all && git commit -m start` there"
        )
    if done == "git is not installed":
        raise ServiceError("git, which DVC needs, is not installed")
    if done:
        echo(f"warning: runs do not record their commit: {done}")


def print_status(stack: Stack) -> None:
    """Print the running services and their addresses."""
    for name in service_definitions.names(stack):
        if (found := supervisor.running(stack, name)) is None:
            echo(f"{name}: stopped")
            continue
        scheme = "http://" if name in WEB_PAGES else ""
        where = f", {scheme}{HOST}:{found['port']}" if found["port"] else ""
        echo(f"{name}: running, process {found['pid']}{where}")


def print_environment(stack: Stack) -> None:
    """Print lines for a shell: `eval "$(python -m infra.local env)"`."""
    for name, value in sorted(stack.environment().items()):
        if CLIENT_VARIABLES.match(name) and value != os.environ.get(name):
            echo(f"export {name}={shlex.quote(value)}")


def flow_parameters(profile: str | None) -> dict[str, Any]:
    """Return the parameters of the run; raises `ParamsError` for an unknown profile."""
    return {"profile": choose("profile", profile, profile_names())} if profile else {}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start Prefect's server and worker and MLflow's server")
    start.add_argument(
        "--cluster",
        action="store_true",
        help="on PostgreSQL, with an S3 store and two Ray nodes (needs Debian's postgresql)",
    )
    start.add_argument("--only", metavar="SERVICE", help="start this one alone")
    commands.add_parser("down", help="stop them")
    commands.add_parser("status", help="print which of them run")
    commands.add_parser("env", help="print the variables by which other programs find them")
    run = commands.add_parser("benchmark", help="run everything and print Table 1")
    run.add_argument("--profile", help="a profile (default: what params.yaml says)")
    options = parser.parse_args(arguments)
    root = Path.cwd()
    if not (root / "prefect.yaml").exists():
        parser.error(f"{root} holds no prefect.yaml; run in the project's folder")
    logging.basicConfig(level=logging.INFO, handlers=[EchoHandler()])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also when started with `&`
    terminal.handle(ENDS, leave)
    addresses.reach_loopback_directly()
    try:
        if options.command in ("up", "benchmark"):
            check_folder(root)
        stack = service_definitions.find_stack(root, getattr(options, "cluster", False))
        if options.command == "up":
            bring_up(stack, options.only)
        elif options.command == "down":
            down(stack, service_definitions.CLUSTER)
        elif options.command == "status":
            print_status(stack)
        elif options.command == "env":
            print_environment(stack)
        else:
            with supervisor.exclusive(stack, "benchmark"):
                return benchmark(stack, flow_parameters(options.profile))
    except KeyboardInterrupt:
        echo("interrupted: finished work is kept; run again to continue")
        return 130
    except Exception as error:
        own = isinstance(error, (ServiceError, ApiError, ParamsError, OSError))
        if not own and not is_told(error):
            raise
        terminal.complain(f"error: {addresses.redacted(str(error)) if own else one_line(error)}")
        return 1
    return 0


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Cancel and stop as after Ctrl-C; the same signal often comes twice."""
    for signum in ENDS:
        signal.signal(signum, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
