"""Run a training in this process, or on Ray under its supervision.

Ray runs in its own process and session. If a worker, the trainer or the whole cluster is killed, or
a worker hangs, this process ends the rest and restarts from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import secrets
import socket
import subprocess
import time
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from dxai.config.schema import TrainingParams
from dxai.datasets.remote_cache import cache_root, publish
from dxai.models import devices
from dxai.paths import HERE, MANIFEST
from dxai.training.checkpoints import Checkpoint
from dxai.training.distributed import SINGLE_PROCESS
from dxai.training.events import Console, Stopped, StopRequest
from dxai.training.jobs import Job
from dxai.utils import addresses, processes, shared_process
from dxai.utils.files import digest
from dxai.utils.own_folder import python_without_space

START_SECONDS = 180.0
"""Time limit in seconds for the first event from Ray."""
STOP_SECONDS = 60.0
"""Time limit in seconds for saving after a stop request."""
END_SECONDS = 20.0
"""Time limit in seconds for leaving an external cluster."""
ANSWER_SECONDS = 10.0
"""Time limit in seconds for an answer at RAY_ADDRESS."""
SETTINGS = b"\x04"
"""Type of the frame by which client and server of HTTP/2 begin."""
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS + b"\0\0\0\0\0"
LOG = "ray.log"
LINK = "DXAI_LINK"
"""Environment variable of a driver: the descriptor of its pipe."""
DRIVER = "from dxai.training.runtime.ray_driver import main; main()"
OWN_CLUSTER = {
    # Ray protects its own clusters like this; all members must use the same mode.
    "RAY_AUTH_MODE": "token",
    # Listen on loopback only, as Ray does on these systems.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # A worker for each core, of which few are used, as Ray Train's have settings of their own.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""Environment of a cluster started here, for this machine only."""
SHARED = "DXAI_CLUSTER"
"""Environment variable: the folder of a cluster shared by several trainings."""


class TrainingFailed(ChildProcessError):
    """A training that failed after all allowed restarts."""


class TrainingError(ValueError):
    """An error raised on a worker that a restart cannot fix."""


@dataclass(frozen=True)
class Task:
    """Input of each worker; `name` identifies the training, its settings and its data.

    `folder` is the working folder of the stage, which workers use as well if they see it.
    """

    job: Job
    checkpoint: Checkpoint
    params: TrainingParams
    name: str
    folder: str = field(default_factory=os.getcwd)


def launch(
    job: Job, title: str, name: str, folder: Path, params: TrainingParams
) -> tuple[dict[str, Any], Checkpoint]:
    """Train to completion, resuming from a checkpoint if there is one.

    Parameters
    ----------
    job : Job
        The training.
    title : str
        Starts progress lines.
    name : str
        Contains a digest of everything that determines the result.
    folder : Path
        Gets panels/, events.jsonl and Ray's log.
    params : TrainingParams
        Where and how it runs.

    Returns
    -------
    dict, Checkpoint
        The final state and its checkpoint, to be removed once the result is written.

    Raises
    ------
    TrainingError, TrainingFailed
        See these. After a signal, KeyboardInterrupt or SystemExit once the state is saved.
    """
    if "://" in params.storage:
        checkpoint = Checkpoint(cache_root() / "checkpoints" / name, params.storage, params.keep)
    else:
        checkpoint = Checkpoint(Path(params.storage).absolute() / name, None, params.keep)
    state = checkpoint.load()
    if state is None or not state["complete"]:
        with StopRequest() as stop:
            metrics = Path(os.environ.get("DXAI_METRICS", HERE.prometheus)).absolute()
            console = Console(title, folder.absolute(), stop, metrics)
            task = Task(job, checkpoint, params, name)
            try:
                if params.executor == "local":
                    run_in_process(task, console)
                else:
                    _supervise(_with_published_data(task, console), console)
            except Stopped:
                stop.answer()
        state = checkpoint.load()
        assert state is not None, "a finished training has saved"
    return state, checkpoint


def run_in_process(task: Task, console: Console) -> None:
    if task.params.workers > 1:
        raise ValueError(f"training.workers is {task.params.workers}; executor: local has one")
    prepare_torch(task.params)
    task.job.run(choose_device(task.params), task.checkpoint, console, SINGLE_PROCESS)


def prepare_torch(params: TrainingParams) -> None:
    """Set threads and determinism of this process, which affect the numbers."""
    torch.set_num_threads(params.cpus_per_worker)
    if params.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def choose_device(params: TrainingParams) -> torch.device:
    """Return the configured device; `auto` takes a GPU if this process has one."""
    return devices.choose_device(params.device, "training.device")


def _with_published_data(task: Task, console: Console) -> Task:
    """With object storage, upload the data; each machine then caches it once."""
    if "://" not in task.params.storage or "://" in task.job.data:
        return task
    folder = Path(task.job.data)
    version = digest((folder / MANIFEST).read_text())
    url = f"{task.params.storage.rstrip('/')}/prepared/{folder.name}-{version}"
    console.emit("say", text=f"workers read the data from {url}")
    publish(folder, url)
    return dataclasses.replace(task, job=dataclasses.replace(task.job, data=url))


# ------------------------------------------------------------------------------------ on Ray
def _supervise(task: Task, console: Console) -> None:
    """Train on Ray; restart after failures that the training did not cause."""
    for attempt in range(task.params.failures + 1):
        console.emit("say", text="starting on Ray")
        address = ray_address()
        try:
            _attempt(task, console, address)
            return
        except TrainingFailed as error:
            if console.stopping:
                raise Stopped(str(error)) from error
            left = task.params.failures - attempt
            if not left:
                times = f"the training was started {attempt + 1} times"
                raise TrainingFailed(f"{error}; {times}") from error
            console.emit("say", text=f"{error}; restarting ({left} restarts left)")


def ray_address() -> str | None:
    """Return the address of the cluster to join; None starts one for this training alone.

    RAY_ADDRESS names it. Otherwise several trainings may share one (`dxai.utils.shared_process`);
    the first starts it, and a lost one is restarted. Raises `ValueError` if no Ray answers at
    RAY_ADDRESS, for which Ray itself would wait for minutes.
    """
    address = addresses.given_cluster()
    if not address and SHARED in os.environ:
        command = [python_without_space(), "-m", "dxai.training.runtime.ray_driver"]
        return shared_process.use(Path(os.environ[SHARED]), command, environment())
    if address in ("", "auto"):
        return address or None
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"RAY_ADDRESS is {address!r}; it must be HOST:PORT, auto or local")
    remedy = "start the cluster, or unset it to train on this machine"
    try:
        found = _speaks_grpc(host, int(port))
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS is {address}, but nothing answers there ({error}); {remedy}"
        ) from None
    if not found:
        raise ValueError(
            f"RAY_ADDRESS is {address}, but what answers there is not the head of a Ray cluster; "
            f"name its port (6379 by default, not the dashboard's), {remedy}"
        )
    return address


def _speaks_grpc(host: str, port: int) -> bool:
    """Whether a server answers the first words of HTTP/2, as Ray's head does.

    Raises `OSError` if none accepts the connection.
    """
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS") == "1":
            return True
        try:
            connection.sendall(HTTP2)
            return connection.recv(9)[3:4] == SETTINGS
        except OSError:
            return False


def _attempt(task: Task, console: Console, address: str | None) -> None:
    """Run one Ray driver process until the training is done."""
    log = console.folder / LOG
    process, ours = start_driver(DRIVER, log)
    try:
        ours.send_bytes(pickle.dumps((task, address)))
        _listen(ours, task.params.hang_seconds, console, log)
        if address:  # let it disconnect
            process.wait(END_SECONDS)
    except (EOFError, ConnectionError):
        raise TrainingFailed(f"Ray ended: {last_line(log)} (full log: {log})") from None
    except subprocess.TimeoutExpired:
        pass
    finally:
        ours.close()
        processes.end_session(process.pid)
        process.wait()


def start_driver(code: str, log: Path) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a driver of Ray in a session of its own; return it, and the pipe that `LINK` names it.

    `log` gets what it and Ray print.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = Pipe()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python_without_space(), "-c", code],
            env=environment() | {LINK: str(theirs.fileno())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    theirs.close()
    return process, ours


def _listen(link: Connection, hang_seconds: float, console: Console, log: Path) -> None:
    """Forward events until the training ends or falls silent; `log` is Ray's."""
    console.last_event, limit = time.monotonic(), max(START_SECONDS, hang_seconds)
    asked: float | None = None
    while True:
        if link.poll(0.2):
            kind, content = link.recv()
            if kind == "done":
                return
            if kind == "stopped":
                raise Stopped(content["text"])
            if kind == "error":
                raise TrainingError(content["text"])
            if kind == "failed":
                raise TrainingFailed(content["text"])
            if kind == "start":
                limit = hang_seconds
            console.emit(kind, **content)
        now = time.monotonic()
        if console.stopping and asked is None:
            link.send("stop")
            asked = now
        if asked is not None and now - asked > STOP_SECONDS:
            raise TrainingFailed("did not stop when asked to; the last checkpoint is kept")
        if now - console.last_event > limit:
            raise TrainingFailed(
                f"hangs: no event for {limit:.0f} seconds; Ray: {last_line(log)} (full log: {log})"
            )


def environment() -> dict[str, str]:
    """Return the environment of a process that starts or joins Ray."""
    joins = bool(addresses.given_cluster())
    inherited = {k: v for k, v in os.environ.items() if joins or k != "RAY_ADDRESS"}
    own = {} if joins else OWN_CLUSTER | _token()
    paths = [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return (
        inherited
        | own
        | addresses.direct_loopback(inherited)
        | {
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),  # a user's own classifiers
            "RAY_ROTATION_BACKUP_COUNT": "3",
            "RAY_ROTATION_MAX_BYTES": "20000000",  # of each log in Ray's own folder
            # It tells workers that their machine will go, which save often anyway.
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
            "RAY_TRAIN_V2_ENABLED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }
    )


def _token() -> dict[str, str]:
    """Return the variable with the token of this folder's clusters, made if necessary.

    Ray would keep one in the home folder, which may be read-only.
    """
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        return {}
    path = HERE.ray_token.absolute()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(temporary, path)  # the first of two processes wins
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return {"RAY_AUTH_TOKEN_PATH": str(path)}


def last_line(path: Path) -> str:
    """Return the last line of Ray's log, shortened."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
