"""The flow `dxai`: a Prefect task for each item of DVC's graph, then the results.

Log messages are formatted here, since JSON logs would keep the logger's arguments apart.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from pathlib import Path
from typing import Annotated, Any

from prefect import Flow, flow, get_run_logger, runtime, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.tasks import Task
from pydantic import Field

from dxai.config.params_file import load_params
from dxai.config.profiles import select_profile
from dxai.config.schema import METHODS
from dxai.config.settings import ParamsError
from dxai.paths import HERE
from dxai.results.io import read_table
from dxai.results.table_specs import NUMBERED, SPECS
from dxai.utils import progress, shared_process
from flows import cache_check, dvc_outputs, slots, webhook, workspace
from flows.dvc_runner import Attempt, graph, group_of, lanes, prune_locks, reproduce
from flows.lanes import StageFailed

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Method = Annotated[str, Field(pattern=f"^({'|'.join(METHODS)})$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Table = Annotated[int, Field(ge=min(NUMBERED), le=max(NUMBERED))]

PROGRESS_SECONDS = 5.0
"""Least seconds between two updates of a progress bar."""


CHANGED = "changed.md"
"""The changes since the last accepted run, for the webhook."""
PATIENCE_SECONDS = 300.0
"""How long the results wait for an MLflow server that does not answer."""


class GateFailed(RuntimeError):
    """A table got worse by more than its confidence intervals explain."""


def page_url(run: str) -> str:
    server = str(PREFECT_UI_URL.value() or str(PREFECT_API_URL.value() or "").removesuffix("/api"))
    return f"{server}/runs/flow-run/{run}"


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """Post the outcome of the run to the webhook at DXAI_WEBHOOK, if set."""
    notice = HERE.notices / str(flow_run.id)
    changed = notice / CHANGED
    body = webhook.message(
        flow_run.name,
        page_url(str(flow_run.id)),
        state.name or state.type.value,
        state.message or "",
        notice / HERE.table("table1").name,
        changed.read_text() if changed.exists() else "",
    )
    if outcome := webhook.send(body):
        print(outcome, flush=True)
    shutil.rmtree(notice, ignore_errors=True)
    if state.is_crashed():  # killed, so the run in MLflow is still open
        send_missed()


@flow(
    name="dxai",
    on_completion=[notify],
    on_failure=[notify],
    on_crashed=[notify],
    on_cancellation=[notify],
)
def full_benchmark(
    profile: Name | None = None,
    datasets: Annotated[list[Name], Field(min_length=1)] | None = None,
    classifiers: Annotated[list[Name], Field(min_length=1)] | None = None,
    methods: Annotated[list[Method], Field(min_length=1)] | None = None,
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None,
    ray_address: Annotated[str, Field(pattern=r"^(auto|[^:/\s]+:\d+)$")] | None = None,
    tables: Annotated[list[Table], Field(min_length=1)] | None = None,
    gate: bool = False,
    verify: bool = False,
) -> None:
    """Bring every stage of dvc.yaml up to date, publish the tables and log the run to MLflow.

    All of it happens in a workspace, a copy of the project as it is now. Parameters other than None
    replace the corresponding part of params.yaml there. In the end the outputs move to the
    project's folder, where no file changes that git tracks.

    Parameters
    ----------
    profile : str, optional
        A profile, from which all settings are taken.
    datasets, classifiers : list of str, optional
        Names from the profile, the catalogue or params.yaml.
    methods : list of str, optional
        The rows of Table 1 besides the decomposition.
    seeds : list of int, optional
        Seeds of the decomposition.
    ray_address : str, optional
        HOST:PORT of the Ray cluster to train on; default: RAY_ADDRESS, else a cluster on this
        machine that all trainings of the run share.
    tables : list of int, optional
        Make only these tables of the paper, with the stages that they need, and neither a report
        nor an MLflow run.
    gate : bool
        Fail, after everything is published, if a score of the decomposition or an accuracy is worse
        than in the last accepted run of this profile by more than the 95% intervals explain.
    verify : bool
        First hash every file that DVC keeps, and recreate damaged ones.
    """
    kept = dvc_outputs.cache()
    workspace.check_room([*workspace.WRITTEN, kept])
    logger, kept = get_run_logger(), kept.absolute()
    with workspace.of_run(runtime.flow_run.name, str(runtime.flow_run.id)) as space:
        for line in space.changed:
            logger.info(f"params.yaml: {line}")
        select(profile, datasets, classifiers, methods, seeds)
        space.remote = dvc_outputs.share(space.project, space.folder)
        with nullcontext("") if tables else open_record() as run:
            if verify:
                cache_check.check(logger.warning, kept)
            try:
                with shared_process.hold(HERE.ray):
                    address = {"RAY_ADDRESS": ray_address} if ray_address else {}
                    environment = {"DXAI_CLUSTER": str(HERE.ray.absolute())} | address
                    reproduce_all(environment, run, space, tables)
                if tables:
                    publish_some(tables)
                    deliver(space)
                    space.keep_record = True  # which MLflow has of other runs
                else:
                    record(run, space, gate)
            finally:
                dvc_outputs.remember(space.folder, space.project)


def reproduce_all(
    environment: dict[str, str],
    record_in: str,
    space: workspace.Space,
    tables: list[int] | None = None,
) -> None:
    """Run every item, or those that some tables need, with variables added to the environment.

    `record_in` is the run in MLflow that has the results even if a method failed.
    """
    logger, context = get_run_logger(), copy_context()
    at_once = lanes()
    needed = {table: SPECS[NUMBERED[table]].stages for table in tables or ()}
    needs = graph(wanted=set().union(*needed.values()) if needed else None)
    for table, stages in needed.items():
        if stages.isdisjoint(map(group_of, needs)):
            raise ParamsError(
                f"tables: {HERE.params} selects nothing that Table {table} is made of; "
                "the profiles `full` and `smoke` make every table"
            )
    logger.info(f"{len(needs)} items, up to {at_once} at once")
    dvc_outputs.recall(space.folder)
    found = dvc_outputs.restore(needs, space.folder, logger.warning, pull=space.remote)
    states: dict[str, State] = {}

    def run(target: str, attempt: Attempt) -> None:
        task = run_item.with_options(name=target, task_run_name=target)
        before = [states[other] for other in needs[target] if other in states]
        # This runs in a thread without the context of the flow's run.
        state = context.copy().run(task, attempt, wait_for=before, return_state=True)
        states[target] = state
        state.result()

    try:
        reproduce(
            needs,
            logger.info,
            environment=environment,
            at_once=at_once,
            stale=needs.keys() - found,
            run=run,
            name=str(runtime.flow_run.name),
        )
    except StageFailed as failure:
        if failure.stage == "report" and not tables:
            # A method failed: its row of the tables says so, and the others are valid.
            record(record_in, space, gate=False)
        raise


def deliver(space: workspace.Space) -> None:
    """Send what was computed to DVC's remote, if there is one, and the outputs to the project."""
    warn = get_run_logger().warning
    if space.remote:
        dvc_outputs.push(space.folder, warn)
    prune_locks(space.project)
    space.keep |= not dvc_outputs.hand_over(space.folder, space.project, warn)


def select(profile: str | None, *names: Any) -> None:
    """Write the parameters to params.yaml, and check the whole file before a stage runs."""
    if profile is not None or any(name is not None for name in names):
        for line in select_profile(HERE.params, profile, *names):
            get_run_logger().info(f"params.yaml: {line}")
    load_params(HERE.params)


@contextmanager
def open_record() -> Iterator[str]:
    """Open the run in MLflow before anything is computed, with settings, commit and state.

    A store that cannot be used fails the flow at once, in one line.
    """
    from dxai.tracking import mlflow_store, provenance  # MLflow takes seconds to import

    if problem := provenance.problem(HERE.project):
        get_run_logger().warning(f"the commit of this run is not recorded: {problem}")
    page = page_url(str(runtime.flow_run.id))
    tags = {"prefect.flow_run": str(runtime.flow_run.id), "prefect.url": page}
    tags["mlflow.note.content"] = f"Prefect: [{runtime.flow_run.name}]({page})"
    name = runtime.flow_run.name
    with mlflow_store.benchmark_run(Path.cwd(), load_params(HERE.params), name, tags) as run:
        get_run_logger().info(f"MLflow run {run} in {mlflow_store.where()}")
        if link := mlflow_store.page(run):
            create_link_artifact(link, f"MLflow run {run}", key="mlflow", description="This run.")
        yield run


def record(run: str, space: workspace.Space, gate: bool) -> None:
    """Publish the results in Prefect and MLflow, and compare them with the last accepted run.

    The project has them even if MLflow is down or the gate refuses them.
    """
    try:
        publish(space.project)
        check_for_regression(track(run), gate)
    finally:
        deliver(space)


def can_retry(task: Task, run: TaskRun, state: State) -> bool:
    """Whether a retry can help, as after a killed process, a lock or lack of memory."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, StageFailed) and error.by_input)


@task(
    retries=1,
    retry_delay_seconds=2,
    retry_condition_fn=can_retry,
    cache_policy=NO_CACHE,  # DVC is the cache
)
def run_item(attempt: Attempt) -> None:
    """Run an item, log every line that it prints, and show its progress as an artifact."""
    stage, logger = str(runtime.task_run.name), get_run_logger()
    artifact: Any = None
    shown = -PROGRESS_SECONDS
    for line in attempt():
        logger.info(line)
        share = progress.share(line)
        if share is None or (share < 1 and time.monotonic() - shown < PROGRESS_SECONDS):
            continue
        shown = time.monotonic()
        try:
            if artifact is None:
                key = "progress-" + re.sub(r"[^a-z0-9]+", "-", stage.lower())
                artifact = create_progress_artifact(
                    100 * share, key=key, description=f"Progress of {stage}."
                )
            else:
                update_progress_artifact(artifact, 100 * share)
        except Exception as error:  # the server or its database is down: the stage goes on
            logger.warning(f"progress is not shown: {error}")


@task(cache_policy=NO_CACHE)
def publish(project: Path) -> None:
    """Publish the tables and the location of the report as artifacts of the run."""
    publish_tables(HERE.tables, [name for name, spec in SPECS.items() if spec.logged])
    report, tables = project / HERE.report, project / HERE.tables
    create_markdown_artifact(
        f"The report with all tables and pictures: [{HERE.report}]({report.as_uri()})\n\n"
        f"The tables as files: [{HERE.tables}]({tables.as_uri()})",
        key="report",
        description="Location of the results.",
    )


@task(cache_policy=NO_CACHE)
def publish_some(tables: list[int]) -> None:
    """Make some tables from existing results, and publish them as artifacts of the run."""
    numbers = [str(number) for number in tables]
    name, log = str(runtime.flow_run.name), get_run_logger().info
    with slots.turn(HERE.turns / "tables", name, log):
        subprocess.run(
            [sys.executable, "-m", "dxai", "tables", *numbers, "--into", str(HERE.some_tables)],
            check=True,
        )
        publish_tables(HERE.some_tables, [NUMBERED[table] for table in tables])


def publish_tables(folder: Path, names: list[str]) -> None:
    """Publish tables, read from CSV files, as artifacts."""
    for name in names:
        if rows := read_table(folder / f"{name}.csv"):
            key = name.replace("table", "table-")
            create_table_artifact(rows, key=key, description=SPECS[name].title)


@task(retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE)
def track(opened: str) -> str:
    """Log the results to the run in MLflow; returns the id of the run that has them.

    Values come from the result files, to include stages that DVC skipped. MLflow is first sent the
    training metrics that it missed while it was down.
    """
    from dxai.tracking import mlflow_store

    if printed := send_missed():
        get_run_logger().info(printed)
    params, name = load_params(HERE.params), runtime.flow_run.name
    run = mlflow_store.log_benchmark(
        Path.cwd(), params, name, run=opened, patience=PATIENCE_SECONDS
    )
    if run != opened:
        get_run_logger().warning(f"the results are in MLflow run {run}: run {opened} has others")
    return run


def send_missed() -> str:
    """Send MLflow what it missed, and close what a killed process left; returns the last line."""
    done = subprocess.run(
        [sys.executable, "-m", "dxai.tracking.live"], capture_output=True, text=True
    )
    return "".join((done.stdout + done.stderr).strip().splitlines()[-1:])


@task(name="judge", cache_policy=NO_CACHE)
def check_for_regression(run: str, gate: bool) -> None:
    """Publish the changes since the last accepted run of this profile.

    With `gate`, raises `GateFailed` if a score of the decomposition or an accuracy got
    significantly worse.
    """
    from dxai.reporting.text_comparison import as_markdown
    from dxai.results.comparison import compare
    from dxai.tracking import mlflow_store

    before, after = mlflow_store.accepted_before(run), mlflow_store.read_run(run)
    if before is None:
        changed, worse = "Nothing to compare with: the first run of this profile.", []
    else:
        found = compare(before, after)
        changed, worse = as_markdown(found), [cell.name for cell in found.worse]
        create_markdown_artifact(
            changed, key="changes", description="Changes since the last accepted run."
        )
    notice = HERE.notices / str(runtime.flow_run.id)
    notice.mkdir(parents=True, exist_ok=True)
    (notice / CHANGED).write_text(changed)
    shutil.copy(HERE.table("table1"), notice)
    if gate:
        mlflow_store.tag(run, {"gate": "refused" if worse else "accepted"})
    if worse and before is not None:
        text = f"worse than run {before.name} beyond the noise: {', '.join(worse)}"
        get_run_logger().warning(text)
        if gate:
            raise GateFailed(text)
