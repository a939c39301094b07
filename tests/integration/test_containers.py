"""The compose file's commands, environments and health checks, run without an engine.

What differs from containers: one host instead of names, free ports, folders instead of volumes, an
address of 127.0.0.0/8 for each node of Ray, and rclone as the S3 store.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dxai.utils import processes
from tests import containers
from tests.conftest import require_program
from tests.containers import ROOT
from tests.integration.conftest import wait_for
from tests.ray_jobs import TITLES, session
from tests.repository import git

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ORDER = ("postgres", "s3", "prefect", "mlflow", "ray-head", "ray-worker", "worker")
NODES = {"ray-head": "127.0.0.2", "ray-worker": "127.0.0.3", "worker": "127.0.0.4"}
PATIENCE = 240.0


def free_port() -> int:
    """Return a free port below those that the system assigns, so that it stays free."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Stack:
    """The services of the compose file, as processes."""

    folder: Path
    secrets: dict[str, str]
    commit: str
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.secrets | {"DXAI_COMMIT": self.commit}
        filled = containers.interpolate(containers.compose(), given)
        numbers = ("4200", "5000", "5432", "6379", "6380", "8080", "9000")
        self.ports = {number: free_port() for number in numbers}
        self.services = {name: self._here(name, filled["services"][name]) for name in ORDER}
        assert filled["services"].keys() == self.services.keys()
        self.services["s3"] |= self._here("s3", self._store())
        users = (containers.KUBERNETES / "mlflow-users.ini").read_text()
        (self.folder / "config").mkdir()
        (self.folder / "config/mlflow-users.ini").write_text(self._here("mlflow", users))

    def _store(self) -> dict[str, Any]:
        """Return a service for the file's, of whose program there is no package."""
        keys = f"{self.secrets['S3_ACCESS_KEY']},{self.secrets['S3_SECRET_KEY']}"
        probe = "import socket; socket.create_connection(('127.0.0.1', 9000), 5)"
        return {
            "command": ["rclone", "serve", "s3", "--addr", "0.0.0.0:9000", "/data"],
            "environment": {"RCLONE_CONFIG": "", "RCLONE_AUTH_KEY": f'"{keys}"'},
            "healthcheck": {"test": ["CMD", "python", "-c", probe]},
        }

    def _here(self, name: str, value: Any) -> Any:
        """Return a value of the file with containers' names, ports and folders as they are here."""
        if isinstance(value, dict):
            return {key: self._here(name, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._here(name, item) for item in value]
        if not isinstance(value, str) or value in self.secrets.values():
            return value
        value = value.replace("ray-head:", f"{NODES['ray-head']}:")
        value = re.sub(r"\b(postgres|s3|prefect|mlflow):(?=\d)", "127.0.0.1:", value)
        value = value.replace("0.0.0.0", "127.0.0.1")
        if name in NODES:  # a node of Ray listens on its own address
            value = value.replace("socket.gethostname()", f"'{NODES[name]}'")
            value = re.sub(r"^127\.0\.0\.1:(?=6379)", f"{NODES['ray-head']}:", value)
        value = re.sub(r"\b\d{4}\b", lambda m: str(self.ports.get(m[0], m[0])), value)
        return re.sub(
            r"(?<![\w.])/(config|data|workspace|cache|source|tmp)\b", rf"{self.folder}/\1", value
        )

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment that the image and the file set, with this machine's programs."""
        image = {k: v for k, v in containers.image_environment().items() if k != "PATH"}
        own = {k: self._here(name, v) for k, v in image.items()}
        extra = {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOSTNAME": name,
            "PGPORT": str(self.ports["5432"]),
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.ports["8080"]),
            "RAY_TMPDIR": str(self.folder / "ray"),
            "OMP_NUM_THREADS": "1",
        }
        return own | self.services[name].get("environment", {}) | extra

    def start(self, name: str) -> None:
        """Start a service with the command of the file."""
        command = list(self.services[name].get("command", []))
        if name in NODES:
            command.append(f"--node-ip-address={NODES[name]}")
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command,
                cwd=self.services[name].get("working_dir", self.folder / "tmp"),
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def healthy(self, name: str, seconds: float = 30) -> bool:
        """Return whether the service's own health check passes within some seconds."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        here: dict[str, Any] = {"env": self.environment(name), "cwd": self.folder}
        try:
            done = subprocess.run(command, **here, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:  # so does Ray's, as long as there is no head
            return False
        return done.returncode == 0

    def wait(self, name: str) -> None:
        """Wait until the health check passes; restart the service if it ends, as the file says."""
        deadline = time.monotonic() + PATIENCE
        while not self.healthy(name):
            assert time.monotonic() < deadline, self.log(name)
            if name in self.running and self.running[name].poll() is not None:
                processes.end_session(self.running[name].pid)
                self.start(name)
            time.sleep(1)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def python(self, code: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run Python where the Prefect worker runs, as a stage of the flow would."""
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder / "workspace/dxai",
            env=self.environment("worker") | extra,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def url(self, number: str) -> str:
        return f"http://127.0.0.1:{self.ports[number]}"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Start all services in the file's order, each once those that it waits for are healthy."""
    folder = Path(tempfile.mkdtemp(prefix="dx", dir="/tmp"))  # Ray's sockets want a short name
    folder.chmod(0o755)
    names = containers.secret_names()
    subprocess.run(["git", "clone", "--quiet", ROOT, folder / "source"], check=True)
    stack = Stack(folder, {name: secrets.token_hex(24) for name in names}, head(folder / "source"))
    for name in ("bin", "data", "workspace", "cache", "tmp", "ray"):
        (folder / name).mkdir()
    (folder / "bin/dxai-worker").symlink_to(ROOT / "infra/image/worker.sh")
    try:
        with Postgres(stack):
            for name in ORDER:
                for other in stack.services[name].get("depends_on", {}):
                    assert other == "postgres" or other in stack.running
                if name != "postgres":
                    assert not stack.healthy(name, 10)
                    stack.start(name)
                stack.wait(name)
            yield stack
    finally:
        for name in reversed(stack.running):
            process = stack.running[name]
            processes.end_group(process.pid)
            processes.end_session(process.pid)
        shutil.rmtree(folder, ignore_errors=True)


def head(repository: Path) -> str:
    """Return the commit that is checked out."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Postgres:
    """Debian's PostgreSQL, set up by the file that the container runs at its first start."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.folder = stack, stack.folder / "postgres"
        homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self.bin = homes[-1] if homes else Path(require_program("initdb")).parent
        self.user = {"user": "postgres"} if os.getuid() == 0 else {}  # it refuses root

    def run(self, *command: str | Path) -> None:
        environment = self.stack.environment("postgres")
        environment["PGPASSWORD"] = environment["POSTGRES_PASSWORD"]
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, **self.user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def __enter__(self) -> None:
        self.folder.mkdir()
        password = self.folder / "password"
        password.write_text(self.stack.services["postgres"]["environment"]["POSTGRES_PASSWORD"])
        if self.user:
            shutil.chown(self.folder, "postgres")
            shutil.chown(password, "postgres")
        password.chmod(0o600)
        data, options = self.folder / "data", self.stack.services["postgres"]["environment"]
        initdb = [self.bin / "initdb", "-U", "postgres", "-D", data, f"--pwfile={password}"]
        self.run(*initdb, *options["POSTGRES_INITDB_ARGS"].split())
        where = f"-h 127.0.0.1 -k {self.folder}"
        log = self.folder / "log"
        self.run(self.bin / "pg_ctl", "-D", data, "-l", log, "-w", "-o", where, "start")
        script = containers.KUBERNETES / "databases.sql"
        psql = [self.bin / "psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-h", "127.0.0.1"]
        readable = self.folder / "databases.sql"  # the checkout may be root's alone
        readable.write_text(script.read_text())
        self.run(*psql, "-U", "postgres", "-f", readable)

    def __exit__(self, *exception: object) -> None:
        self.run(self.bin / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")


def ask(url: str, password: str | None = None, **headers: str) -> tuple[int, str]:
    """Send a GET request; returns the status and the text."""
    request = urllib.request.Request(url, headers=headers)
    if password:
        credentials = base64.b64encode(f"dxai:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_the_worker_s_clone_is_the_checkout_and_its_deployments_are_known(stack: Stack) -> None:
    assert head(stack.folder / "workspace/dxai") == head(stack.folder / "source") == stack.commit
    url = f"{stack.url('4200')}/api/deployments/name/dxai/full-benchmark"
    status, text = ask(url, stack.secrets["PREFECT_PASSWORD"])
    assert status == 200
    assert json.loads(text)["work_pool_name"] == "dxai-local"
    assert ask(url)[0] == ask(url, "wrong")[0] == 401


def test_a_training_s_driver_joins_the_cluster_through_the_worker_s_node(stack: Stack) -> None:
    code = (
        "import os, ray; from dxai.training.runtime.supervisor import environment\n"
        "os.environ.update(environment())\n"
        "ray.init(os.environ['RAY_ADDRESS'], log_to_driver=False, _node_ip_address=HERE)\n"
        "where = lambda: ray.get_runtime_context().get_node_id()\n"
        "import json\n"
        "nodes = {n['NodeID']: n['NodeManagerAddress'] for n in ray.nodes() if n['Alive']}\n"
        "far = ray.get(ray.remote(num_cpus=2)(where).remote())\n"
        "print(json.dumps([nodes[where()], nodes[far], sorted(nodes.values())]))"
    ).replace("HERE", repr(NODES["worker"]))  # a container has one address, this machine three
    done = stack.python(code)
    assert done.returncode == 0, done.stderr
    here, far, nodes = json.loads(done.stdout.splitlines()[-1])
    assert (here, far) == (NODES["worker"], NODES["ray-worker"])
    assert nodes == sorted(NODES.values())
    assert stack.python(code, RAY_AUTH_TOKEN="0" * 48).returncode != 0


def test_artifacts_go_through_mlflow_into_the_object_store(stack: Stack) -> None:
    body = secrets.token_bytes(20 << 20)  # more than one part
    (stack.folder / "tmp/body.bin").write_bytes(body)
    code = (
        "import mlflow, sys\n"
        "from dxai.tracking.mlflow_store import open_store\n"
        "from pathlib import Path\n"
        "with open_store(Path.cwd()) as store, store.run('a run', {}) as run:\n"
        f"    store.client.log_artifact(run, '{stack.folder}/tmp/body.bin')\n"
        "    print(store.client.download_artifacts(run, 'body.bin', sys.argv[-1]))"
    )
    done = stack.python(code.replace("sys.argv[-1]", repr(str(stack.folder / "cache"))))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).read_bytes() == body
    (stored,) = (stack.folder / "data/dxai/mlflow").rglob("body.bin")
    assert stored.read_bytes() == body
    experiments = f"{stack.url('5000')}/api/2.0/mlflow/experiments/get?experiment_id=1"
    assert ask(experiments, stack.secrets["MLFLOW_PASSWORD"])[0] == 200
    assert ask(experiments)[0] == ask(experiments, "wrong")[0] == 401
    assert ask(experiments, stack.secrets["MLFLOW_PASSWORD"], Host="evil.example")[0] == 403
    refused = stack.python(code, MLFLOW_TRACKING_PASSWORD="wrong")
    (said,) = refused.stderr.splitlines()[-1:]
    assert refused.returncode != 0 and said.startswith("ValueError: MLflow (http"), refused.stderr
    assert "401" in said or "not authenticated" in said, said


def test_the_object_store_wants_its_keys_and_holds_checkpoints(stack: Stack) -> None:
    code = (
        "from dxai.utils.storage import open_url\n"
        "fs, root = open_url('s3://dxai/training')\n"
        "fs.pipe(f'{root}/a/b.bin', b'x' * (12 << 20))\n"
        "assert fs.cat(f'{root}/a/b.bin') == b'x' * (12 << 20)\n"
        "assert [p.rpartition('/')[2] for p in fs.ls(f'{root}/a')] == ['b.bin']"
    )
    done = stack.python(code)
    assert done.returncode == 0, done.stderr
    assert stack.python(code, AWS_SECRET_ACCESS_KEY="wrong").returncode != 0


def test_no_process_and_no_log_shows_a_secret(stack: Stack) -> None:
    shown = [path.read_text(errors="replace") for path in stack.folder.glob("*.log")]
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            shown.append(line.read_bytes().decode(errors="replace"))
        except OSError:  # ended just now
            continue
    assert any("rclone" in text for text in shown)
    for name, value in stack.secrets.items():
        assert not any(value in text for text in shown), name


@pytest.mark.parametrize("how", ["raylet", "stop"])
def test_the_worker_ends_as_a_whole(stack: Stack, how: str) -> None:
    """It ends with its Ray node, or when asked to; started again, it works again.

    With another commit it works at that, which its clone fetches.
    """
    process = stack.running["worker"]
    members = session(process.pid)
    assert len(members) > 3
    if how == "stop":
        process.send_signal(signal.SIGTERM)
    else:
        (raylet,) = (pid for pid, command in members.items() if TITLES["raylet"] in command)
        os.kill(raylet, signal.SIGKILL)
    assert process.wait(45) != 0
    wait_for(lambda: not session(process.pid), 30)
    if how == "raylet":
        without_a_node(stack)
    git(stack.folder / "source", "commit", "--quiet", "--allow-empty", "-m", "The next version")
    commit = head(stack.folder / "source")
    assert commit != head(stack.folder / "workspace/dxai")
    stack.services["worker"]["environment"]["DXAI_COMMIT"] = commit
    stack.start("worker")
    stack.wait("worker")
    assert head(stack.folder / "workspace/dxai") == commit


def without_a_node(stack: Stack) -> None:
    """Check that a worker whose Ray node gives up takes no runs, and ends."""
    before = stack.log("worker")
    ray = stack.folder / "bin/ray"
    ray.write_text("#!/bin/sh\necho no node today; sleep 15; exit 3\n")
    ray.chmod(0o755)
    try:
        stack.start("worker")
        assert stack.running["worker"].wait(PATIENCE) == 1
    finally:
        ray.unlink()
    said = stack.log("worker").removeprefix(before)
    takes_runs = "Worker 'worker' started"
    assert "no node today" in said
    assert takes_runs in before and takes_runs not in said
