"""Every command of docs/operating.md, in a project with a cluster's processes.

The tests come in the order of an operator's days, and each goes on where the one before ended.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra import service_definitions, supervisor
from tests import containers
from tests.integration.conftest import ROOT, Project, wait_for
from tests.operating_manual import MANUAL, block, sections
from tests.ray_jobs import session
from tests.repository import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MAKE = """set -e
make() {  # `.ci/run` installs afresh; here a new clone gets the environment that runs the tests
    if [ ! -e .venv ]; then mkdir .venv; ln -s "$ENVIRONMENT"/* .venv; touch .venv/installed; fi
    command make "$@"
}
"""
JSON_LOGS = {"PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json"}
ELSEWHERE = ("docker", "kubectl")
"""Programs that need what no test can start."""


def shell(
    project: Project, script: str, folder: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a block as if pasted into a shell; it has to succeed."""
    done = subprocess.run(
        ["bash", "-c", MAKE + script],
        cwd=folder or project.root,
        env=project.environment | {"ENVIRONMENT": sys.prefix} | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done


@pytest.fixture(scope="module")
def project(cluster: Project) -> Project:
    """Make the cluster's project ready after other tests: up, with a run of some seconds."""
    if not (cluster.root / "results/report.html").exists():
        overrides = {"repeat": "{classifiers: [], seeds: []}", "ablations.variants": "{}"}
        cluster.select(profile="smoke", classifiers=["simple"], methods=["ig"], overrides=overrides)
    shell(cluster, "make up CLUSTER=1", **JSON_LOGS)
    return cluster


def test_every_block_is_run_here_or_in_the_test_of_reproduce() -> None:
    counts = {heading: len(blocks) for heading, blocks in sections().items()}
    assert counts == {
        "Runs": 1,
        "Every night": 1,
        "In containers: compose": 2,
        "On Kubernetes": 2,
        "Upgrade": 1,
        "Housekeeping": 1,
        "Back up and restore": 3,  # the second in test_operations.py
        "A store for what is computed": 1,
        "Reproduce a run": 1,
        "All processes on one machine": 1,
        "When something is wrong": 1,
        "What happens when something dies": 1,
    }


def test_runs(project: Project) -> None:
    before = len(project.flow_runs())
    shell(project, block("Runs"))
    states = [run["state"]["type"] for run in project.flow_runs()[: -before or None]]
    assert states == ["COMPLETED"] * 3
    made = (project.root / ".work/tables/table3.csv").read_text()
    assert "textures,simple,simple" in made


def test_every_night(project: Project) -> None:
    listing, *rest = block("Every night").splitlines(keepends=True)
    said = shell(project, listing, COLUMNS="200").stdout
    (schedule,) = set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", said))
    shell(project, "".join(rest).replace("SCHEDULE_ID", schedule))
    (nightly,) = (
        found for found in project.api.call("deployments/filter", {}) if found["name"] == "nightly"
    )
    assert [entry["active"] for entry in nightly["schedules"]] == [False]
    last = project.flow_runs()[0]
    assert (last["deployment_id"], last["state"]["type"]) == (nightly["id"], "COMPLETED")


def test_a_store_for_what_is_computed(project: Project) -> None:
    cache = project.root / ".dvc/cache"
    away = cache.rename(project.root.parent / "cache of DVC")
    for name in ("data/prepared", "artifacts", "results"):
        shutil.rmtree(project.root / name)
    said = shell(project, block("A store for what is computed")).stdout
    assert "Running stage" not in said
    assert (project.root / "results/report.html").exists()
    shutil.rmtree(away)


def test_all_processes_on_one_machine(project: Project) -> None:
    said = shell(project, block("All processes on one machine")).stdout
    assert said.count("running, process") == len(service_definitions.CLUSTER)
    assert "Running stage" not in said  # the runs computed all of it
    assert project.local("status").stdout.count("stopped") == len(service_definitions.LOCAL)


@pytest.fixture(scope="module")
def repository(project: Project) -> Path:
    """Make the repository from which the project's code comes."""
    bare = project.root.parent / "repository.git"
    git(project.root, "clone", "--quiet", "--bare", str(project.root), str(bare))
    git(project.root, "remote", "add", "origin", str(bare))
    git(project.root, "fetch", "--quiet")
    branch = git(project.root, "branch", "--show-current").strip()
    git(project.root, "branch", "--quiet", f"--set-upstream-to=origin/{branch}")
    return bare


def test_upgrade(project: Project, repository: Path) -> None:
    other = project.root.parent / "other"
    git(other.parent, "clone", "--quiet", str(repository), str(other))
    (other / "NEWS").write_text("a new version\n")
    git(other, "add", "NEWS")
    git(other, "commit", "--quiet", "-m", "A new version")
    git(other, "push", "--quiet")
    (project.root / ".work/mlflow-version").write_text("3.0.0")
    said = shell(project, block("Upgrade"), **JSON_LOGS).stdout
    assert (project.root / "NEWS").exists()
    assert "mlflow: bringing its database from version 3.0.0" in said
    status = project.local("status").stdout
    assert status.count("running, process") == len(service_definitions.CLUSTER)


def test_what_happens_when_something_dies(project: Project) -> None:
    found = supervisor.running(supervisor.Stack(project.root, cluster=True), "mlflow")
    assert found is not None
    for pid in session(found["pid"]):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "stopped" in project.local("status").stdout)
    shell(project, block("What happens when something dies"), **JSON_LOGS)
    said = project.local("status").stdout
    assert said.count("running, process") == len(service_definitions.CLUSTER)


def logged_runs(project: Project) -> set[str]:
    """Return the ids of MLflow's runs, from its server."""
    ask = (
        "from mlflow import MlflowClient as C; c = C(); print(*(r.info.run_id for e in "
        "c.search_experiments() for r in c.search_runs([e.experiment_id])))"
    )
    said = shell(project, f'eval "$(python -m infra.local env)"; python -c "{ask}"').stdout
    return set(said.splitlines()[-1].split())


def test_back_up_and_restore(project: Project, repository: Path) -> None:
    runs, logged = {run["id"] for run in project.flow_runs()}, logged_runs(project)
    shell(project, block("Back up and restore"))
    backup = project.root.parent / "dxai-backup"
    assert backup.stat().st_mode & 0o077 == 0  # it has the secrets in it
    status = project.local("status").stdout
    assert status.count("running, process") == len(service_definitions.CLUSTER)
    project.local("down")
    lost = project.root.rename(project.root.with_name("lost"))
    said = shell(
        project,
        block("Back up and restore", 2),
        project.root.parent,
        REPOSITORY=str(repository),
        FOLDER=str(project.root),
        **JSON_LOGS,
    ).stdout
    assert "Completed" in said
    now = {run["id"] for run in project.flow_runs()}
    assert len(now - runs) == 1
    assert runs < now
    assert logged < logged_runs(project)
    log = project.log(project.flow_runs()[0]["id"])
    assert "Running stage" not in log
    assert "Stage 'tables' didn't change" in log
    for name in ("results", "artifacts", "data/prepared"):
        assert contents(project.root / name) == contents(lost / name)
    shutil.rmtree(lost)
    shutil.rmtree(backup)


DELETE = """
import sys
from mlflow import MlflowClient
client = MlflowClient()
run = client.create_run(client.get_experiment_by_name("dxai").experiment_id).info.run_id
client.log_text(run, "x", "x.txt")
client.delete_run(run)
print(run)
"""


def test_housekeeping(project: Project) -> None:
    """Also what the section says of a cluster's MLflow."""
    listed = shell(project, block("Housekeeping")).stdout
    assert "nothing to remove that is older than 90 days" in listed
    assert (project.root / ".work/secrets").exists()
    assert not (project.root / ".pytest_cache").exists()
    cluster = 'eval "$(python -m infra.local env)"\n'
    said = shell(project, f"{cluster}python - <<'END'{DELETE}END\n").stdout
    run = said.splitlines()[-1]
    assert list((project.root / ".work/store/dxai/mlflow").rglob(f"{run}/**/x.txt"))
    assert (
        "1 runs in MLflow" in shell(project, f"{cluster}dxai clean mlflow --older 0 --yes").stdout
    )
    assert not list((project.root / ".work/store/dxai/mlflow").rglob(f"{run}/**/x.txt"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_when_something_is_wrong(project: Project) -> None:
    said = shell(project, block("When something is wrong")).stdout
    assert said.count("running, process") == 7
    assert "worker.log" in said
    (table,) = re.findall(r"\| symptom .*?\n\n", MANUAL.read_text(), re.DOTALL)
    remedies = [row.rsplit("|", 2)[1] for row in table.strip().splitlines()[2:]]
    commands = [command for remedy in remedies for command in re.findall("`([^`]+)`", remedy)]
    there = [command for command in commands if " " in command]
    assert len(there) >= 10
    for command in there:
        if command.startswith("make"):  # `make up` and `make venv` have tests of their own
            shell(project, command.replace("make ", "make --dry-run "))
        elif command != "git init":
            shell(project, command.replace("...", "/tmp"))


def test_logs_are_json_with_the_run(project: Project) -> None:
    run = project.flow_runs()[0]
    lines = (project.root / ".work/logs/worker.log").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    own = [record for record in records if record.get("flow_run_id") == run["id"]]
    assert any("Stage 'tables' didn't change" in record["msg"] for record in own)
    assert {"levelname", "created"} <= own[-1].keys()
    assert any(record.get("task_run_name") for record in own)


# ------------------------------------------------------------------------------ other machines
def split(script: str) -> tuple[str, list[list[str]]]:
    """Split a block into what can run here and the words of each command that cannot."""
    lines = script.splitlines(keepends=True)
    there = [shlex.split(line, comments=True) for line in lines if line.startswith(ELSEWHERE)]
    return "".join(line for line in lines if not line.startswith(ELSEWHERE)), there


@pytest.fixture
def copy(tmp_path: Path) -> Project:
    """Copy the infra folder into a repository, to write secrets and its commit into it."""
    shutil.copytree(ROOT / "infra", tmp_path / "infra", ignore=shutil.ignore_patterns(".env"))
    (tmp_path / ".work").mkdir()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "x")
    return Project(tmp_path, tmp_path / "audit", dict(os.environ))


def check_secrets(path: Path) -> dict[str, str]:
    assert path.stat().st_mode & 0o077 == 0
    values = dict(line.split("=", 1) for line in path.read_text().splitlines())
    drawn = [values[name] for name in containers.secret_names()]
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in drawn)
    assert len(set(drawn)) == len(drawn)
    return values


def test_compose(copy: Project) -> None:
    first, second = sections()["In containers: compose"]
    here, there = split(first + second)
    shell(copy, here)
    values = check_secrets(copy.root / "infra/compose/.env")
    assert values["DXAI_COMMIT"] == git(copy.root, "rev-parse", "HEAD").strip()
    services = containers.interpolate(containers.compose(), values)["services"]
    verbs = set()
    for docker, compose, verb, *words in there:
        assert (docker, compose) == ("docker", "compose")
        verbs.add(verb)
        named = [word.split("=")[0] for word in words if word.split("=")[0] in services]
        assert named or verb in ("up", "down"), words
        if "-c" in words:
            script = words[words.index("-c") + 1]
            subprocess.run(["bash", "-n", "-c", script], check=True)
    assert verbs == {"up", "exec", "down"}


def test_kubernetes(copy: Project) -> None:
    here, there = split("".join(sections()["On Kubernetes"]))
    shell(copy, here)
    values = check_secrets(copy.root / ".work/cluster.env")
    assert values.keys() == {*containers.secret_names(), "DXAI_REPOSITORY"}
    objects = {(item["kind"], item["metadata"]["name"]): item for item in containers.kubernetes()}
    listing = yaml.safe_load((copy.root / "infra/kubernetes/kustomization.yaml").read_text())
    space = listing["namespace"]
    (code,) = (entry for entry in listing["configMapGenerator"] if entry["name"] == "code")
    assert code["literals"] == [f"DXAI_COMMIT={git(copy.root, 'rev-parse', 'HEAD').strip()}"]
    for words in there:
        assert space in words or words[1] == "apply"
        for file in (word.removeprefix("--from-env-file=") for word in words if "/" in word):
            kind, _, name = file.partition("/")
            if kind == "service":
                target = words[-1].split(":")[1]
                ports = objects["Service", name]["spec"]["ports"]
                assert int(target) in [port["port"] for port in ports]
            else:
                assert (copy.root / file).exists()
