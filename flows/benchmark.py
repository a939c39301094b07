"""The flow `dxai`: one Prefect task for each group of DVC stages, then the record of the run."""

import csv
import os
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task
from pydantic import Field

from dxai import lifeline
from dxai.params import METHODS, load_params
from dxai.profiles import select_profile
from flows.stages import Group, StageFailed, groups, lanes, out_of_date, reproduce

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Method = Annotated[str, Field(pattern=f"^({'|'.join(METHODS)})$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

PARAMS = Path("params.yaml")
TABLES = Path("results/tables")
PUBLISHED = {
    "claims": "What the paper claims of each table, with what was measured.",
    "table1": "Table 1: AUC while the class-distinct part is removed, lower is better.",
    "table2": "Table 2: area while the pixels that matter most are deleted, lower is better.",
    "table3": "Table 3: AUC, trained for one classifier, scored by each.",
    "table4": "Table 4: standard deviation over seeds.",
    "table5": "Table 5: images.",
    "table6": "Table 6: accuracy of the classifiers.",
}
"""Tables that become artifacts of the run."""
REPORT = Path("results/report.html")
CLUSTER = Path(".work/cluster")


@flow(name="dxai")
def full_benchmark(
    profile: Name | None = None,
    datasets: Annotated[list[Name], Field(min_length=1)] | None = None,
    classifiers: Annotated[list[Name], Field(min_length=1)] | None = None,
    methods: Annotated[list[Method], Field(min_length=1)] | None = None,
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None,
    ray_address: Annotated[str, Field(pattern=r"^(auto|[^:/\s]+:\d+)$")] | None = None,
) -> None:
    """Bring every stage of dvc.yaml up to date, publish the tables and log the run to MLflow.

    What is given replaces that part of the `run` block of params.yaml before anything starts (so
    that DVC, and whoever looks later, sees what was run); what is None stays as the file says.

    Parameters
    ----------
    profile : str, optional
        A profile of params.yaml; the whole block is taken from it.
    datasets, classifiers : list of str, optional
        Names from the profile or from the catalogue of params.yaml.
    methods : list of str, optional
        The rows of Table 1 beside ours.
    seeds : list of int, optional
        Seeds of the decomposition.
    ray_address : str, optional
        HOST:PORT of the Ray cluster that trains; default: RAY_ADDRESS, or one on this machine,
        shared by all trainings of the run.
    """
    select(profile, datasets, classifiers, methods, seeds)
    with lifeline.hold(CLUSTER):
        address = {"RAY_ADDRESS": ray_address} if ray_address else {}
        reproduce_all({"DXAI_CLUSTER": str(CLUSTER.absolute())} | address)
    record()


def reproduce_all(environment: dict[str, str]) -> None:
    """Run every group, with something added to the environment of its stages."""
    parts = groups()
    stale = out_of_date(target for group in parts for target in group.targets)
    known: set[str] | None = stale  # until something runs, on which others may depend
    for place, group in enumerate(parts, 1):
        items = f"{len(group.targets)} item{'s' * (len(group.targets) > 1)}"
        get_run_logger().info("part %d of %d: %s, %s", place, len(parts), group.name, items)
        try:
            run_group.with_options(name=group.name)(group, environment, known)
        except StageFailed:
            if group is parts[-1]:  # a method failed: its row says so, the others stand
                record()
            raise
        if stale.intersection(group.targets):
            known = None


def select(profile: str | None, *names: Any) -> None:
    """Write what was asked for into params.yaml, and check the whole file before anything runs."""
    if profile is not None or any(name is not None for name in names):
        for line in select_profile(PARAMS, profile, *names):
            get_run_logger().info("params.yaml: %s", line)
    load_params(PARAMS)


def record() -> None:
    """Show the results where people look for them."""
    publish()
    track()


def worth_another_try(task: Task, run: TaskRun, state: State) -> bool:
    """Everything but a stage that blames its input: a killed process, a lock, memory."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, StageFailed) and error.by_input)


@task(
    retries=1,
    retry_delay_seconds=2,
    retry_condition_fn=worth_another_try,
    cache_policy=NO_CACHE,  # DVC is the cache
)
def run_group(group: Group, environment: dict[str, str], stale: set[str] | None) -> None:
    """One group of stages, with every line they print in the task's log."""
    logger = get_run_logger()

    def log(line: str) -> None:
        logger.info("%s", line)

    reproduce(group.targets, log, environment=environment, at_once=lanes(), stale=stale)


@task(cache_policy=NO_CACHE)
def publish() -> None:
    """The tables, and where the report is, as artifacts of the run."""
    for name, description in PUBLISHED.items():
        with (TABLES / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        key = name.replace("table", "table-")
        if rows:
            create_table_artifact(rows, key=key, description=description)
    report = REPORT.resolve()
    create_markdown_artifact(
        f"The report with all tables and pictures: [{REPORT}]({report.as_uri()})\n\n"
        f"The tables as files: [{TABLES}]({TABLES.resolve().as_uri()})",
        key="report",
        description="Where the results are.",
    )


@task(retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE)
def track() -> None:
    """The run in MLflow, from the result files: what DVC skipped shows in it too."""
    from dxai import tracking  # MLflow takes seconds to import

    tags = {"prefect.flow_run": str(runtime.flow_run.id)}
    run = tracking.log_benchmark(Path.cwd(), load_params(PARAMS), runtime.flow_run.name, tags)
    get_run_logger().info("MLflow run %s in %s", run, os.environ.get("MLFLOW_TRACKING_URI"))
