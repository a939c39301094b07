"""Copies of the project with servers of their own, in which everything really runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from dxai.config.profiles import select_profile
from infra.prefect_api import PrefectApi
from tests import s3
from tests.conftest import group_of, require_program
from tests.repository import git
from tests.servers import serving
from tests.webhook_receiver import Hook

ROOT = Path(__file__).resolve().parents[2]
HOOK_SECRET = "T0K3N-that-only-the-environment-has"
SMOKE: dict[str, Any] = {
    "profile": "smoke",
    "classifiers": ["simple", "joint"],
    "methods": ["ig", "lime"],
    "overrides": {
        "repeat": "{classifiers: [simple], seeds: [1]}",
        "ablations.variants": "{two_branches: {branches: 2}}",
    },
}
"""Every kind of stage of the profile, an item or two of each, since one takes up to ten seconds;
tests/unit/stages tries every method, and two frozen classifiers."""
AUDIT = """
import os, sys
def _note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        address = arguments[1] if event != "socket.getaddrinfo" else arguments[:2]
        with open(os.environ["DXAI_TEST_AUDIT"], "a") as file:
            print(event, repr(address), file=file)
sys.addaudithook(_note)
"""
"""Notes every address that a Python process resolves or connects to."""


SHARED_PROJECTS = pytest.StashKey[list[tuple[str, "Project"]]]()
"""Projects that outlive a file of tests, with the fixture that made each."""


@dataclass
class Project:
    """A copy of the project.

    Attributes
    ----------
    root : Path
        Its folder.
    audit : Path
        File in which its processes note the addresses that they connect to.
    told : list of dict
        Messages sent to its webhook.
    databases : Path, optional
        Prefect's and MLflow's as they were before the first run, for copies of the project: to
        make them takes the servers a quarter of a minute.
    """

    root: Path
    audit: Path
    environment: dict[str, str] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)
    databases: Path | None = None

    def __post_init__(self) -> None:
        ports = free_ports(5)
        hooks = self.audit.parent / "hooks"
        hooks.mkdir(exist_ok=True)
        (hooks / "sitecustomize.py").write_text(AUDIT)
        self.api = PrefectApi(f"http://127.0.0.1:{ports[0]}/api")
        self.environment = os.environ | {
            "DXAI_PREFECT_PORT": str(ports[0]),
            "DXAI_MLFLOW_PORT": str(ports[1]),
            "DXAI_POSTGRES_PORT": str(ports[2]),
            "DXAI_STORE_PORT": str(ports[3]),
            "DXAI_RAY_PORT": str(ports[4]),
            "PREFECT_API_URL": self.api.url,
            "PYTHONPATH": str(hooks),
            "DXAI_TEST_AUDIT": str(self.audit),
            "PYTHONUNBUFFERED": "1",
            # DVC runs `python`; an activated environment would put it first.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `python -m ...` in the folder, with both outputs in one pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
        """Run `python -m ...` to its end."""
        with self.start(*arguments) as process:
            output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    def interrupt(self, word: str, *arguments: str) -> str:
        """Run `python -m ...`, press Ctrl-C once it has printed `word`, and return its output."""
        process = self.start(*arguments)
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if word in line:
                break
        process.send_signal(signal.SIGINT)
        seen += process.stdout.read()
        assert process.wait() == 130, seen
        return seen

    def local(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the launcher."""
        return self.run("infra.local", *arguments)

    def deployment_run(
        self, *parameters: str, deployment: str = "full-benchmark"
    ) -> subprocess.CompletedProcess[str]:
        """Run the README's command."""
        options = [word for parameter in parameters for word in ("-p", parameter)]
        return self.run("prefect", "deployment", "run", f"dxai/{deployment}", "--watch", *options)

    def select(self, **wanted: Any) -> None:
        """Change params.yaml as `dxai use` does."""
        select_profile(self.root / "params.yaml", **wanted)

    def narrow(self, **wanted: Any) -> None:
        """Select one frozen classifier and a joint one, without repetition and ablation."""
        overrides = {
            "repeat": "{classifiers: [], seeds: []}",
            "ablations.variants": "{}",
            "randomisation.images": "0",
        }
        overrides |= wanted.pop("overrides", {})
        self.select(**{"classifiers": ["simple", "joint"], "overrides": overrides, **wanted})

    def flow_runs(self) -> list[dict[str, Any]]:
        """Return all runs, the newest first."""
        return self.api.call("flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})

    def log(self, run: str) -> str:
        """Return the messages that a run's tasks logged."""
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return "\n".join(record["message"] for record in self.api.call("logs/filter", body))

    def processes(self) -> dict[int, str]:
        """Map the ids of processes that run in the folder to their commands."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(self.root) and process.cmdline():
                    found[process.pid] = " ".join(process.cmdline())
        return found

    def keep_databases(self) -> None:
        """Copy the databases of the running servers."""
        self.databases = self.audit.parent / "databases"
        for name in ("mlflow.db", "prefect/prefect.db"):
            target = self.databases / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                contextlib.closing(sqlite3.connect(self.root / ".work" / name)) as source,
                contextlib.closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)

    def close(self) -> None:
        """Stop the servers and all processes that a failed test left."""
        self.local("down")
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def copy_project(target: Path) -> None:
    """Copy every file that git does not ignore into a repository of its own."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        git(target, *arguments)


@pytest.fixture(scope="session")
def make_project(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Project]]:
    """Return a function that copies the project, or another copy with its results."""
    made: list[Project] = []

    def make(origin: Project | None = None) -> Project:
        folder = tmp_path_factory.mktemp("project")
        root = folder / "a clone"  # with a space
        if origin is None:
            root.mkdir()
            copy_project(root)
        else:
            ignore = shutil.ignore_patterns(".work", "*.lock", "rwlock")
            shutil.copytree(origin.root, root, ignore=ignore, symlinks=True)
            if (origin.root / "dvc.lock").exists():  # DVC ran by hand there
                shutil.copy(origin.root / "dvc.lock", root)
            if origin.databases:
                shutil.copytree(origin.databases, root / ".work")
        made.append(Project(root, folder / "audit"))
        return made[-1]

    yield make
    for project in made:
        project.close()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the services that tests shared after the last of them, as they would go on computing."""
    group = group_of(item.path)
    if nextitem is None or group_of(nextitem.path) != group:
        for fixture, project in item.session.stash.get(SHARED_PROJECTS, []):
            if fixture == group:
                project.local("down")


def share(request: pytest.FixtureRequest, project: Project) -> None:
    """Let the services of a fixture's project end with the last test that shares it."""
    found = request.session.stash.setdefault(SHARED_PROJECTS, [])
    found.append((str(request.fixturename), project))


@pytest.fixture(scope="session")
def finished(
    make_project: Callable[..., Project], request: pytest.FixtureRequest
) -> Iterator[Project]:
    """Start a project and run `SMOKE` in it, by the README's command."""
    project = make_project()
    share(request, project)
    with serving(Hook()) as hook:
        project.told = hook.got
        project.environment["DXAI_WEBHOOK"] = f"{hook.url}/{HOOK_SECRET}"
        up = project.local("up")
        assert up.returncode == 0, up.stdout
        project.keep_databases()
        project.select(**SMOKE)
        run = project.deployment_run()
        assert run.returncode == 0, run.stdout + project.log(project.flow_runs()[0]["id"])
        yield project


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Project]:
    """Start a project with the processes of a cluster."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        require_program("initdb")
    with served("--cluster") as project:
        share(request, project)
        yield project


@contextlib.contextmanager
def served(*options: str) -> Iterator[Project]:
    """Run the services of a copy of the project, in a folder that `postgres` may enter.

    In the end all have to stop, with every process that works there.
    """
    folder = Path(tempfile.mkdtemp(prefix="dxai-cluster-"))
    folder.chmod(0o755)
    root = folder / "a clone"  # with a space
    root.mkdir()
    copy_project(root)
    project = Project(root, folder / "audit")
    project.environment["DXAI_CACHE"] = str(folder / "cache")
    try:
        up = project.local("up", *options)
        assert up.returncode == 0, up.stdout
        yield project
        down = project.local("down")
        assert down.returncode == 0, down.stdout
        assert not (left := project.processes()), left
    finally:
        project.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def moto() -> Iterator[s3.Server]:
    with s3.moto() as server:
        yield server


@pytest.fixture(scope="session")
def rclone() -> Iterator[s3.Server]:
    with s3.rclone() as server:
        yield server


def wait_for(ready: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until `ready` returns a true value, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.2)
    return value


def last_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text())
