"""Trainings in this process and on Ray, and how Ray's address is found."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from multiprocessing import Pipe
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
import torch

from dxai.config.schema import ClassifierSpec, TrainingParams
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import ClassifierJob
from dxai.training.decomposition import DecompositionJob
from dxai.training.events import Console, Stopped, StopRequest
from dxai.training.runtime import supervisor as module
from dxai.training.runtime.supervisor import (
    TrainingError,
    TrainingFailed,
    choose_device,
    launch,
    ray_address,
)
from tests.prepared import PROJECT, prepared_textures
from tests.servers import serving
from tests.unit.training import test_decomposition

SETTINGS = test_decomposition.SMALL.replace(lambda_class=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_textures(tmp_path_factory.mktemp("prepared"), image_size=16)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the threads and determinism of this process, which trainings set."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(module.SHARED, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def params(root: Path, executor: Any = "local", **changed: Any) -> TrainingParams:
    return TrainingParams(
        executor=executor, cpus_per_worker=1, device="cpu", storage=str(root / "kept"), **changed
    )


def decomposition(folder: Path, **changed: Any) -> DecompositionJob:
    """Make a training with C = D, which needs only the data."""
    return DecompositionJob(str(folder), SETTINGS.replace(**changed), None, 0)


def classifier(folder: Path) -> ClassifierJob:
    spec = ClassifierSpec(arch="simple", options={"width": 4})
    return ClassifierJob(str(folder), spec, test_decomposition.LEARN, 0)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


# --------------------------------------------------------------------------------- in this process


@pytest.mark.parametrize("make", [decomposition, classifier])
def test_a_training_in_this_process_is_the_plain_loop(
    make: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)  # as `params` says
    job = make(folder)
    plain = Checkpoint(tmp_path / "x")
    job.run(torch.device("cpu"), plain, test_decomposition.Seen(), module.SINGLE_PROCESS)
    wanted = plain.load()
    state, checkpoint = launch(job, "t", "name", tmp_path / "work", params(tmp_path))
    assert wanted is not None
    same(state, wanted)
    assert checkpoint.folder == tmp_path / "kept/name"
    assert [row["numbers"] for row in events(tmp_path / "work", "row")] == state["history"]
    if make is decomposition:
        panels = sorted(path.name for path in (tmp_path / "work/panels").iterdir())
        assert panels == ["step-000003.png", "step-000006.png"]
    # What is complete is not run again.
    monkeypatch.setattr(type(job), "run", None)
    same(launch(job, "t", "name", tmp_path / "other", params(tmp_path))[0], state)
    assert not (tmp_path / "other").exists()


def same(found: Any, wanted: Any) -> None:
    """Compare nested values exactly, except for seconds."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted.keys() - {"seconds"}:
            same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            same(a, b)
    elif isinstance(wanted, torch.Tensor):
        assert torch.equal(found, wanted)
    else:
        assert found == wanted


@pytest.mark.slow
def test_sigterm_saves_and_the_next_run_goes_on(folder: Path, tmp_path: Path) -> None:
    """The program ends as if by the signal."""
    long = decomposition(folder, steps=100_000, checkpoint_every=100_000, log_every=1)
    content = pickle.dumps((long, "t", "name", tmp_path / "work", params(tmp_path)))
    code = "import pickle, sys; from dxai.training.runtime.supervisor import launch; "
    code += "launch(*pickle.load(sys.stdin.buffer))"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd=PROJECT)
    assert process.stdin is not None
    process.stdin.write(content)
    process.stdin.close()
    end = time.monotonic() + 100
    while (
        not (tmp_path / "work/events.jsonl").exists() or len(events(tmp_path / "work", "row")) < 2
    ):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    state = Checkpoint(tmp_path / "kept/name").load()
    assert state is not None and not state["complete"] and state["step"] >= 2
    short = decomposition(folder, steps=state["step"] + 1, checkpoint_every=100_000, log_every=1)
    done, _ = launch(short, "t", "name", tmp_path / "work", params(tmp_path))
    assert [row["step"] for row in done["history"]] == list(range(1, state["step"] + 2))
    assert events(tmp_path / "work", "start")[-1]["step"] == state["step"]


def test_the_folder_is_that_of_the_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = params(tmp_path).replace(storage="kept")
    _, checkpoint = launch(decomposition(folder, steps=2), "t", "name", Path("work"), here)
    assert checkpoint.folder == tmp_path / "kept/name"


def test_devices() -> None:
    assert choose_device(TrainingParams(device="cpu")) == torch.device("cpu")
    if not torch.cuda.is_available():
        assert choose_device(TrainingParams()) == torch.device("cpu")
        expected = r"training\.device is 'cuda', but .*; valid are auto, cpu"
        with pytest.raises(ValueError, match=expected):
            choose_device(TrainingParams(device="cuda"))


# ------------------------------------------------------------------------------------ where Ray is


@pytest.mark.parametrize("value", ["", "local"])
def test_ray_is_started_here_unless_told(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert ray_address() is None
    here = module.environment()  # as without RAY_ADDRESS: loopback, and a token
    assert "RAY_ADDRESS" not in here
    assert module.OWN_CLUSTER.items() <= here.items()
    token = Path(here["RAY_AUTH_TOKEN_PATH"])
    assert token.is_relative_to(tmp_path)
    assert (token.stat().st_mode & 0o777, len(token.read_text())) == (0o600, 64)
    assert module.environment() == here


@pytest.mark.parametrize(
    "value",
    ["head", "head:", ":6379", "head:port", "http://head:8265", "ray://head:10001", "head:65536"],
)
def test_an_address_that_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    with pytest.raises(ValueError, match=r"it must be HOST:PORT, auto or local$"):
        ray_address()


def test_an_address_where_nobody_answers_is_told_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(ValueError) as caught:
        launch(decomposition(folder), "t", "name", tmp_path / "work", params(tmp_path, "ray"))
    assert time.monotonic() - began < 10
    assert str(caught.value).startswith(f"RAY_ADDRESS is {address}, but nothing answers there (")


@pytest.mark.parametrize("kind", ["silent", "web page", "closes"])
def test_a_server_that_is_not_ray_is_told_at_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would wait for a head in it; tests/integration join real ones."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    handler = BaseHTTPRequestHandler if kind == "web page" else StreamRequestHandler
    with contextlib.ExitStack() as stack:
        if kind == "silent":  # the system accepts, and nobody answers
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        else:
            server = stack.enter_context(serving(ThreadingTCPServer(("127.0.0.1", 0), handler)))
            port = server.server_address[1]
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(ValueError, match=f"{port}, but what answers there is not the head of"):
            ray_address()


# ------------------------------------------------------------------------- what the other end says


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (("error", {"text": "no such thing"}), TrainingError),
        (("failed", {"text": "no such thing"}), TrainingFailed),
        (("stopped", {"text": "no such thing"}), Stopped),
    ],
)
def test_how_a_training_ended(said: Any, error: type[Exception], tmp_path: Path) -> None:
    ours, theirs = Pipe()
    theirs.send(("start", {"step": 0, "total": 2, "images": 1}))
    theirs.send(said)
    with pytest.raises(error, match="no such thing"):
        module._listen(ours, 60.0, Console("t", tmp_path), tmp_path / "ray.log")


def test_an_end_without_a_word_and_one_with(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    theirs.send(("done", {}))
    module._listen(ours, 60.0, Console("t", tmp_path), tmp_path / "ray.log")
    theirs.close()
    with pytest.raises(EOFError):
        module._listen(ours, 60.0, Console("t", tmp_path), tmp_path / "ray.log")


def test_silence_is_a_failure_and_steps_are_none(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    theirs.send(("start", {"step": 0, "total": 9, "images": 1}))

    def speak() -> None:
        for done in range(4):
            time.sleep(0.3)
            theirs.send(("step", {"done": done, "note": ""}))

    (tmp_path / "ray.log").write_text("started\nno room\n")
    thread = threading.Thread(target=speak)
    began = time.monotonic()
    thread.start()
    with pytest.raises(TrainingFailed, match=r"hangs: no event for 1 seconds; Ray: no room "):
        module._listen(ours, 1.0, Console("t", tmp_path), tmp_path / "ray.log")
    assert 2.1 < time.monotonic() - began < 10
    thread.join()


def test_a_request_to_stop_is_passed_on_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Pipe()
    stop = StopRequest()
    stop.pending = signal.SIGTERM
    monkeypatch.setattr(module, "STOP_SECONDS", 0.5)
    with pytest.raises(TrainingFailed, match="did not stop when asked to"):
        module._listen(ours, 60.0, Console("t", tmp_path, stop), tmp_path / "ray.log")
    assert theirs.recv() == "stop"
    assert not theirs.poll()


# ------------------------------------------------------------------------------------------ on Ray


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [decomposition, classifier])
def test_one_worker_on_ray_is_the_plain_loop(make: Any, folder: Path, tmp_path: Path) -> None:
    """Weights, history and pictures are equal to the bit at an equal number of threads."""
    job = make(folder)
    here, _ = launch(job, "t", "here", tmp_path / "here", params(tmp_path))
    there, _ = launch(job, "t", "there", tmp_path / "there", params(tmp_path, "ray"))
    same(there, here)
    panels = {
        folder: {path.name: path.read_bytes() for path in (tmp_path / folder).rglob("*.png")}
        for folder in ("here", "there")
    }
    assert panels["there"] == panels["here"]
    rows = [events(tmp_path / folder, "row") for folder in ("here", "there")]
    assert len(rows[0]) == len(rows[1]) == len(here["history"])
    for row, other in zip(*rows, strict=True):
        same(row["numbers"], other["numbers"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_on_ray_come_close(folder: Path, tmp_path: Path) -> None:
    job = decomposition(folder)
    here, _ = launch(job, "t", "here", tmp_path / "here", params(tmp_path))
    there, _ = launch(job, "t", "there", tmp_path / "there", params(tmp_path, "ray", workers=2))
    one, two = (
        torch.cat([v.flatten() for v in state["networks"]["average"].values()])
        for state in (here, there)
    )
    assert not torch.equal(one, two)  # they did share the batch
    assert float((one - two).norm() / one.norm()) < 1e-4
    for row, other in zip(here["history"], there["history"], strict=True):
        assert row.keys() == other.keys()
        assert other["loss/rec"] == pytest.approx(row["loss/rec"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_error_on_a_worker_is_told_once_and_not_tried_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "textures"
    shutil.copytree(folder, data)
    for path in data.glob("train-0*.parquet"):
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(TrainingError) as caught:
        launch(decomposition(data), "t", "x", tmp_path / "work", params(tmp_path, "ray", workers=2))
    assert "train-00000.parquet" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    said = capsys.readouterr().out
    assert said.count("starting on Ray") == 1 and "again" not in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_numbers_that_go_wrong_end_both_workers(folder: Path, tmp_path: Path) -> None:
    job = decomposition(folder, lr=1e30, steps=50)
    with pytest.raises(TrainingError) as caught:
        launch(job, "t", "x", tmp_path / "work", params(tmp_path, "ray", workers=2))
    step = test_decomposition.named_step(str(caught.value))
    assert test_decomposition.ids_of(folder, 4, step - 1) in str(caught.value)
    assert str(caught.value).endswith("the last checkpoint is kept")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_no_cluster_here_has_is_an_error(folder: Path, tmp_path: Path) -> None:
    many = params(tmp_path, "ray").replace(device="cuda", gpus_per_worker=64.0)
    with pytest.raises(TrainingError) as caught:
        launch(decomposition(folder), "t", "x", tmp_path / "work", many)
    assert str(caught.value).startswith("the cluster has ")
    assert str(caught.value).endswith(" GPU, training.workers needs 1 x 1 CPU, 64 GPU")
