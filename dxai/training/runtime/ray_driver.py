"""A training on Ray: its driver, its workers, and the event queue between them.

The only module that imports Ray. `dxai.training.runtime.supervisor` runs `main` in a separate
process and talks to it over a pipe. `python -m dxai.training.runtime.ray_driver` keeps a cluster
running for several trainings.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import shutil
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dxai.training.distributed import ProcessGroup
from dxai.training.events import EventSink, Stopped
from dxai.training.runtime.supervisor import LINK, Task, choose_device, prepare_torch
from dxai.utils.memory import keep_freed
from dxai.utils.storage import open_url

EMIT_EVERY = 0.5
"""Seconds between two `step` events of a worker."""
LIMIT = "DXAI_RAY_LIMIT"
WAITING_EVERY = 30.0
"""Seconds between two messages while waiting for resources."""


class SingleWorkerConfig(TorchConfig):
    """Omits the process group, whose rendezvous would listen on every network interface."""

    @property
    def backend_cls(self) -> type[Backend]:
        return Backend


@ray.remote(num_cpus=0)
class EventQueue:
    """Collects the workers' events and holds the stop request."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.stop = False

    def put(self, kind: str, content: dict[str, Any]) -> bool:
        """Add an event; return whether to stop."""
        self.events.append((kind, content))
        return self.stop

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Return all events since the last call."""
        events, self.events = self.events, []
        return events

    def request_stop(self) -> None:
        self.stop = True


class QueueSink(EventSink):
    """Emits to an event queue without waiting for it."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self._stop = False
        self._emitted = 0.0
        self._held_back: dict[str, Any] | None = None
        self._pending: list[Any] = []

    @property
    def stopping(self) -> bool:
        self._collect(0)
        return self._stop

    def emit(self, kind: str, **content: Any) -> None:
        now = time.monotonic()
        if kind == "step" and now - self._emitted < EMIT_EVERY:
            self._held_back = content
            return
        self._emitted = now
        if kind == "step":
            self._held_back = None
        self._pending.append(self.queue.put.remote(kind, content))

    def finish(self, kind: str, **content: Any) -> None:
        """Emit the last event and wait until all have arrived."""
        if self._held_back is not None:
            self._emitted = 0.0
            self.emit("step", **self._held_back)
        self.emit(kind, **content)
        self._collect(30)

    def _collect(self, timeout: float) -> None:
        if self._pending:
            count = len(self._pending)
            ready, self._pending = ray.wait(self._pending, num_returns=count, timeout=timeout)
            self._stop = self._stop or any(ray.get(ready))


def work(config: dict[str, Any]) -> None:
    task: Task = ray.get(config["task"][0])
    if os.path.isdir(task.folder):  # a user's network may read files below it
        os.chdir(task.folder)
    context = ray.train.get_context()
    group = ProcessGroup(context.get_world_rank(), context.get_world_size())
    sink = QueueSink(config["queue"])
    events = sink if group.rank == 0 else EventSink()
    prepare_torch(task.params)
    keep_freed()
    device = ray.train.torch.get_device() if config["gpu"] else choose_device(task.params)
    try:
        task.job.run(device, task.checkpoint, events, group)
    except Stopped as stopped:
        if group.rank == 0:
            sink.finish("stopped", text=str(stopped))
    except (ValueError, OSError) as error:  # a restart cannot help
        sink.finish("error", text=str(error))
        raise
    else:
        if group.rank == 0:
            sink.finish("done")


class EventForwarder(threading.Thread):
    """Forwards events from the queue to the supervisor, and its stop request back."""

    def __init__(self, link: Connection, queue: Any, wait: str) -> None:
        super().__init__(daemon=True)
        self.link, self.queue, self.wait = link, queue, wait
        self._over = threading.Event()

    def run(self) -> None:
        announced, started, asked = -WAITING_EVERY, False, False
        while not self._over.is_set():
            for kind, content in ray.get(self.queue.take.remote()):
                started = started or kind == "start"
                self._send(kind, content)
            if self.wait and not started and time.monotonic() - announced > WAITING_EVERY:
                announced = time.monotonic()
                self._send("say", {"text": self.wait})
            if self._should_stop() and not asked:
                if not started:  # nothing to save; Ray ends with the process that started it
                    os._exit(1)
                asked = True
                ray.get(self.queue.request_stop.remote())
            time.sleep(0.1)

    def _send(self, kind: str, content: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a lost supervisor is noticed by `_should_stop` too
            self.link.send((kind, content))

    def _should_stop(self) -> bool:
        """Whether the supervisor asked for a stop or is gone."""
        try:
            return self.link.poll() and self.link.recv() == "stop"
        except (EOFError, OSError):
            return True

    def end(self) -> None:
        """Forward the remaining events and stop."""
        self._over.set()
        self.join()
        for kind, content in ray.get(self.queue.take.remote()):
            self._send(kind, content)


def main() -> None:
    """Run one training, described over the pipe whose descriptor is in the environment."""
    link = Connection(int(os.environ[LINK]))
    task, address = pickle.loads(link.recv_bytes())
    try:
        fit(link, task, address)
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        link.send(("failed", {"text": f"Ray: {type(error).__name__}: {reason}"}))
        raise


def fit(link: Connection, task: Task, address: str | None) -> None:
    """Train `task` with Ray Train.

    Raises Ray's own errors if the cluster is lost, or workers are lost more often than allowed.
    """
    params = task.params
    connect(address, params.workers * params.cpus_per_worker, task)
    try:
        has = capacity()
    except ValueError as error:  # a restart cannot help
        link.send(("error", {"text": str(error)}))
        return
    gpu = params.device == "cuda" or (
        params.device == "auto" and has.get("GPU", 0) >= params.workers * params.gpus_per_worker > 0
    )
    resources = {"CPU": params.cpus_per_worker} | ({"GPU": params.gpus_per_worker} if gpu else {})
    needs = f"{params.workers} x {', '.join(f'{v:g} {k}' for k, v in resources.items())}"
    for kind, each in resources.items():
        if has.get(kind, 0) < params.workers * each:
            text = f"the cluster has {has.get(kind, 0):g} {kind}, training.workers needs {needs}"
            link.send(("error", {"text": text}))
            return
    here = ray.get_runtime_context().get_node_id()
    queue = EventQueue.options(  # type: ignore[attr-defined]
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)
    ).remote()
    free = ray.available_resources()
    short = [k for k, each in resources.items() if free.get(k, 0) < params.workers * each]
    forwarder = EventForwarder(link, queue, f"waiting until {needs} are free" if short else "")
    forwarder.start()
    config, scratch = run_config(task)
    trainer = TorchTrainer(
        work,
        # Ray would replace a bare reference by its content.
        train_loop_config={"task": [ray.put(task)], "queue": queue, "gpu": gpu},
        scaling_config=ScalingConfig(
            num_workers=params.workers,
            use_gpu=gpu,
            resources_per_worker=resources,
            placement_strategy=params.placement,
        ),
        torch_config=(SingleWorkerConfig if params.workers == 1 else TorchConfig)(
            "nccl" if gpu else "gloo"
        ),
        run_config=config,
    )
    try:
        trainer.fit()
        forwarder.end()
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def run_config(task: Task) -> tuple[RunConfig, Path | None]:
    """Configure Ray Train's own records; also returns the folder to remove, if any.

    Checkpoints are our own. Each start has a unique name: Ray would resume an existing one.
    """
    name = f"{task.name}-{os.getpid()}-{time.time_ns()}"
    failures = FailureConfig(max_failures=task.params.failures)
    if "://" in task.params.storage:
        import pyarrow.fs

        system, root = open_url(task.params.storage)
        wrapped = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system))
        config = RunConfig(
            name=name,
            storage_path=f"{root}/{task.checkpoint.folder.name}/ray",
            storage_filesystem=wrapped,
            failure_config=failures,
        )
        return config, None
    folder = task.checkpoint.folder / "ray"
    folder.mkdir(parents=True, exist_ok=True)
    return RunConfig(name=name, storage_path=str(folder), failure_config=failures), folder


def capacity() -> dict[str, float]:
    """Return the resources that the cluster has, or can grow to: DXAI_RAY_LIMIT, as `CPU=8,GPU=2`.

    A cluster that scales by itself may have none before somebody asks for them. Raises `ValueError`
    for a limit of another form.
    """
    has, limit = dict(ray.cluster_resources()), os.environ.get(LIMIT, "")
    for entry in filter(None, limit.split(",")):
        kind, _, count = entry.partition("=")
        if not count.isdigit():
            raise ValueError(f"{LIMIT} is {limit!r}; it must be like CPU=8,GPU=2")
        has[kind.strip()] = max(float(count), has.get(kind.strip(), 0.0))
    return has


def connect(address: str | None, cpus: int, task: Task | None = None) -> None:
    """Join the cluster at an address, or start one on this machine."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init(
            address="local",
            num_cpus=max(len(os.sched_getaffinity(0)), cpus),
            include_dashboard=False,
            object_store_memory=200 << 20,
            **quiet,
        )
    elif "RAY_ADDRESS" not in os.environ:  # started here, with this code
        ray.init(address=address, **quiet)
    else:
        ray.init(address=address, runtime_env={"py_modules": modules(task)}, **quiet)


def modules(task: Task | None) -> list[str]:
    """Return the packages to send to a cluster: this one, and that of a user's classifier."""
    found = [str(Path(__file__).parents[2])]
    if task is not None and task.job.user_package is not None:
        spec = importlib.util.find_spec(task.job.user_package)
        if spec is not None and spec.submodule_search_locations:
            found += list(spec.submodule_search_locations)
        elif spec is not None and spec.origin:
            found.append(spec.origin)
    return found


def keep_cluster() -> None:
    """Start a cluster here, print its address, and keep it until standard input ends.

    Standard input ends with the process that holds the cluster, even if that is killed.
    """
    connect(None, 1)
    print(ray.get_runtime_context().gcs_address, flush=True)
    os.dup2(2, 1)  # the reader of that line may have ended
    gone = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        gone.set()

    threading.Thread(target=wait, daemon=True).start()
    while not gone.wait(2.0):
        if not any(node["Alive"] for node in ray.nodes()):
            sys.exit("the cluster was lost")
    ray.shutdown()


if __name__ == "__main__":
    keep_cluster()
