"""Interrupting and resuming on a small prepared dataset, and numbers that go wrong."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dxai.config.params_file import format_params, read_yaml
from dxai.config.profiles import select_profile
from dxai.config.schema import ClassifierParams, DecomposeParams
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.classifiers import build_network
from dxai.models.serialization import save_classifier
from dxai.training import batch_order, decomposition
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import best_epoch, train_classifier
from dxai.training.decomposition import snapshot_steps, train
from dxai.training.events import Console, EventSink, Stopped, StopRequest
from dxai.training.run import NonFiniteError, TrainingRun
from dxai.training.step import Networks, build_networks
from dxai.types import Decomposition
from tests.prepared import PROJECT, prepared_textures

SMALL = DecomposeParams(
    steps=6,
    batch_size=4,
    branches=2,
    branch_width=3,
    coarsest=8,
    mapping_width=8,
    style_dim=8,
    discriminator_width=4,
    alpha_per="image",
    r1_every=2,
    checkpoint_every=2,
    log_every=3,
    panel_every=3,
    lr=1e-3,
)
LEARN = ClassifierParams(epochs=3, batch_size=8, lr=5e-3, noise=0.1)


class Seen(EventSink):
    """Keep all events, and ask to stop after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.stop_after = stop_after
        self.done = 0

    @property
    def stopping(self) -> bool:
        # Asked after a step is computed and before it is told.
        return self.stop_after is not None and self.done + 1 >= self.stop_after

    def emit(self, kind: str, **content: Any) -> None:
        self.events.append((kind, content))
        if kind == "step":
            self.done = content["done"]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return all events of a kind."""
        return [content for name, content in self.events if name == kind]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_textures(tmp_path_factory.mktemp("prepared"), image_size=16)


def start(
    folder: Path | str, params: DecomposeParams = SMALL, seed: int = 0
) -> tuple[ShardedDataset, Networks]:
    data = ShardedDataset(folder, "train")
    torch.manual_seed(0)
    classifier = build_network("simple", 1, 3, 16, width=4)
    return data, build_networks(params, 1, 3, 16, classifier, seed)


def run(
    folder: Path,
    checkpoint: Checkpoint,
    params: DecomposeParams = SMALL,
    events: EventSink | None = None,
) -> tuple[Networks, list[dict[str, Any]]]:
    data, networks = start(folder, params)
    validation = ShardedDataset(folder, "validation")
    events = events or EventSink()
    return networks, train(networks, params, TrainingRun(data, validation, 0, checkpoint, events))


def without_seconds(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"seconds": 0} for row in history]


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("simple", 1, 3, 16, width=4)


def learn(
    folder: Path,
    net: nn.Module,
    checkpoint: Checkpoint,
    params: ClassifierParams = LEARN,
    events: EventSink | None = None,
) -> list[dict[str, Any]]:
    data, validation = (ShardedDataset(folder, s) for s in ("train", "validation"))
    return train_classifier(
        net, params, TrainingRun(data, validation, 0, checkpoint, events or EventSink())
    )


class Dies(Checkpoint):
    """A checkpoint whose process ends right after the first save."""

    def save(self, state: dict[str, Any], step: int, score: float = 0.0) -> None:
        super().save(state, step, score)
        raise KeyboardInterrupt


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("how", ["dies", "is asked to stop"])
def test_an_interrupted_training_continues_to_the_same_numbers(
    how: str, folder: Path, tmp_path: Path
) -> None:
    seen = Seen()
    undisturbed, history = run(folder, Checkpoint(tmp_path / "a"), events=seen)
    assert [panel["step"] for panel in seen.of("panel")] == [3, 6]
    if how == "dies":
        with pytest.raises(KeyboardInterrupt):
            run(folder, Dies(tmp_path / "b"))
    else:
        with pytest.raises(Stopped, match="stopped after step 5"):
            run(folder, Checkpoint(tmp_path / "b"), events=Seen(stop_after=5))
    again = Seen()
    continued, second = run(folder, Checkpoint(tmp_path / "b"), events=again)
    assert again.of("start")[0]["step"] == (2 if how == "dies" else 5)
    assert_equal_weights(undisturbed.average, continued.average)
    assert_equal_weights(undisturbed.discriminator, continued.discriminator)
    assert without_seconds(second) == without_seconds(history)
    assert again.of("panel")[-1] == seen.of("panel")[-1]
    # All rows reach the new sink, as the killed process may have lost the last ones.
    assert [row["numbers"] for row in again.of("row")] == second


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        (300_000, [1, 10_000, 100_000]),  # Table 4, with those after the last step
        (1500, [1, 50, 500]),
        (20, [1, 7]),
        (3, [1]),
        (1, []),
    ],
)
def test_snapshots_are_those_of_table_4_scaled(steps: int, kept: list[int]) -> None:
    assert snapshot_steps(steps) == kept


def test_snapshots_survive_an_interruption_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    run(folder, Checkpoint(tmp_path / "a"))
    with pytest.raises(Stopped):  # between the two steps after which weights are kept
        run(folder, Checkpoint(tmp_path / "b"), events=Seen(stop_after=1))
    run(folder, Checkpoint(tmp_path / "b"))
    whole, resumed = (Checkpoint(tmp_path / name).load() for name in ("a", "b"))
    assert whole is not None and resumed is not None
    assert sorted(whole["snapshots"]) == sorted(resumed["snapshots"]) == snapshot_steps(6) == [1, 2]
    for step, state in whole["snapshots"].items():
        assert state.keys() == resumed["snapshots"][step].keys()
        assert all(torch.equal(v, resumed["snapshots"][step][k]) for k, v in state.items())
    first, second = (whole["snapshots"][step] for step in (1, 2))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert all(value.device.type == "cpu" for value in first.values())
    once, _ = run(folder, Checkpoint(tmp_path / "c"), SMALL.replace(steps=2))
    assert all(torch.equal(v, second[k]) for k, v in once.average.state_dict().items())


def test_what_is_told(folder: Path, tmp_path: Path) -> None:
    seen = Seen()
    _, history = run(folder, Checkpoint(tmp_path), events=seen)
    assert seen.events[0] == ("start", {"step": 0, "total": 6, "images": 4})
    assert [event["done"] for event in seen.of("step")] == [1, 2, 3, 4, 5, 6]
    assert [row["numbers"] for row in seen.of("row")] == history
    assert [row["step"] for row in seen.of("row")] == [3, 6]
    assert all(panel["png"].startswith(b"\x89PNG") for panel in seen.of("panel"))


def test_a_step_reads_the_images_that_its_number_says() -> None:
    order = batch_order.Order(seed=3, n=10, batch_size=4)
    stream = np.concatenate([order.indices(step) for step in range(5)])
    assert sorted(stream[:10]) == list(range(10))  # one pass sees each image once
    assert sorted(stream[10:]) == list(range(10))
    fresh = batch_order.Order(seed=3, n=10, batch_size=4)
    assert (fresh.indices(4) == order.indices(4)).all()  # whatever was asked before


# -------------------------------------------------------------------------- numbers that go wrong


def ids_of(folder: Path, batch_size: int, step: int) -> str:
    """Return the ids of the images of a step, as messages list them."""
    data = ShardedDataset(folder, "train")
    indices = batch_order.Order.over(data, 0, batch_size).indices(step)
    return ", ".join(data.ids[i] for i in indices)


def named_step(message: str) -> int:
    found = re.match(r"step (\d+): ", message)
    assert found, message
    return int(found[1])


def assert_finite(state: dict[str, Any]) -> None:
    for value in state.values():
        if isinstance(value, dict):
            assert_finite(value)
        elif isinstance(value, Tensor):
            assert value.isfinite().all()


class Poisoned(Seen):
    """Put a value into a weight after some steps, as an overflow in an update would."""

    def __init__(self, weight: Tensor, value: float, after: int) -> None:
        super().__init__()
        self.weight, self.value, self.after = weight, value, after

    def emit(self, kind: str, **content: Any) -> None:
        super().emit(kind, **content)
        if kind == "step" and content["done"] == self.after:
            self.weight.data.view(-1)[0] = self.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["decomposer", "discriminator"])
def test_a_loss_that_is_not_finite_stops_with_step_and_images(
    which: str, value: float, folder: Path, tmp_path: Path
) -> None:
    data, networks = start(folder)
    events = Poisoned(next(getattr(networks, which).parameters()), value, after=4)
    checkpoint = Checkpoint(tmp_path)
    validation = ShardedDataset(folder, "validation")
    with pytest.raises(NonFiniteError) as caught:
        train(networks, SMALL, TrainingRun(data, validation, 0, checkpoint, events))
    message = str(caught.value)
    assert re.match(r"step 5: loss [\w, ]+ is not finite; images ", message)
    assert ids_of(folder, 4, step=4) in message
    state = checkpoint.load()
    assert state is not None and state["step"] == 4
    assert_finite(state["networks"])


def test_steps_that_are_too_long_stop_it_too(folder: Path, tmp_path: Path) -> None:
    wild = SMALL.replace(lr=1e30, steps=50)
    with pytest.raises(NonFiniteError) as caught:
        run(folder, Checkpoint(tmp_path), wild)
    step = named_step(str(caught.value))
    assert ids_of(folder, 4, step - 1) in str(caught.value)


class Overflows(torch.optim.Adam):
    """An optimiser that makes one weight overflow, although the loss before was finite."""

    at = 0

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        self.at -= 1
        if self.at == 0:
            self.param_groups[0]["params"][0].data.view(-1)[0] = math.nan


@pytest.mark.parametrize("which", ["optimiser", "optimiser_d"])
def test_weights_that_are_not_finite_are_no_checkpoint(
    which: str, folder: Path, tmp_path: Path
) -> None:
    """Otherwise every rerun would resume from them and stop again."""
    data, networks = start(folder)
    optimiser = getattr(networks, which)
    optimiser.__class__, optimiser.at = Overflows, 4  # a checkpoint is due after step 4
    checkpoint = Checkpoint(tmp_path)
    validation = ShardedDataset(folder, "validation")
    with pytest.raises(NonFiniteError) as caught:
        train(networks, SMALL, TrainingRun(data, validation, 0, checkpoint, EventSink()))
    assert named_step(str(caught.value)) == 4
    assert ids_of(folder, 4, step=3) in str(caught.value)
    state = checkpoint.load()
    assert state is not None and state["step"] == 2
    assert_finite(state["networks"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_classifiers_loss_that_is_not_finite_stops_it(
    value: float, folder: Path, tmp_path: Path
) -> None:
    net = network()
    steps = len(ShardedDataset(folder, "train")) // LEARN.batch_size
    events = Poisoned(next(net.parameters()), value, after=steps + 2)
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(ValueError) as caught:
        learn(folder, net, checkpoint, events=events)
    assert str(caught.value).startswith(f"step {steps + 3}: the loss is not finite; images ")
    assert ids_of(folder, LEARN.batch_size, steps + 2) in str(caught.value)
    state = checkpoint.load()
    assert state is not None and state["step"] == steps  # of the first epoch
    assert_finite(state["network"])


OVERFLOWS = """
import torch

class Overflows(torch.nn.Module):
    def __init__(self, after):
        super().__init__()
        self.after, self.scale = after, torch.nn.Parameter(torch.ones(3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        large = 1e30 if self.calls > self.after else 1.0
        return self.scale * x.mean((1, 2, 3))[:, None] * large * large
"""


def project(folder: Path, root: Path, after: int) -> Path:
    """Make a project with textures and a classifier that overflows after some calls."""
    (root / "data/prepared").mkdir(parents=True)
    shutil.copytree(folder, root / "data/prepared/textures")
    (root / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    changed = {
        "classifier.epochs": "6",
        "decompose.batch_size": "4",
        "decompose.checkpoint_every": "1",
        "decompose.steps": "9",
    }
    changed |= {"training.executor": "local"}
    select_profile(root / "params.yaml", "smoke", methods=["random"], overrides=changed)
    params = read_yaml(root / "params.yaml")
    options = {"after": after}
    params["classifiers"] = {
        "mine": {"arch": "mine:Overflows", "options": options, "files": ["mine.py"]}
    }
    params["repeat"]["classifiers"], params["ablations"]["classifiers"] = [], []
    (root / "params.yaml").write_text(format_params(params))
    (root / "mine.py").write_text(OVERFLOWS)
    return root


def stage(root: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"dxai.stages.{name}", "textures", "mine", *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
def test_the_classifiers_stage_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    root = project(folder, tmp_path, after=20)  # in the second epoch
    assert_ended_well(root, stage(root, "classifier", "explained"), 32, "network")


def with_model(root: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Add a trained classifier to a project."""
    monkeypatch.syspath_prepend(str(root))
    net = build_network("mine:Overflows", 1, 3, 16, after=after)
    info = {"arch": "mine:Overflows", "options": {"after": after}, "channels": 1, "image_size": 16}
    info |= {"class_names": ["brick", "grass", "gravel"], "value_range": [-1.0, 1.0]}
    save_classifier(root / "artifacts/classifiers/textures/mine/explained/model.pt", net, info)
    return root


@pytest.mark.slow
def test_the_decompositions_stage_ends_with_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = with_model(project(folder, tmp_path, after=9), 9, monkeypatch)
    assert_ended_well(root, stage(root, "decompose", "0"), 4, "networks")


@pytest.mark.slow
def test_a_complete_training_is_taken_over_where_its_pictures_are_not(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training ended on a machine that was lost before it wrote the result."""
    root = with_model(project(folder, tmp_path, after=10**6), 10**6, monkeypatch)
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("storage: .work/checkpoints", "storage: kept"))
    (root / "artifacts/decompositions").write_text("in the way")
    assert stage(root, "decompose", "0").returncode == 1
    assert list((root / "kept").rglob("step-000000009.pt"))
    shutil.rmtree(root / ".work")
    (root / "artifacts/decompositions").unlink()
    done = stage(root, "decompose", "0")
    assert (done.returncode, done.stderr) == (0, "")
    result = root / "artifacts/decompositions/textures/mine/0"
    assert len((result / "history.csv").read_text().splitlines()) > 1
    assert not (root / "kept").exists() or not list((root / "kept").iterdir())


def assert_ended_well(
    root: Path, done: subprocess.CompletedProcess[str], batch_size: int, kept: str
) -> None:
    """Check exit code 1, a line with step and images, and a sound earlier checkpoint."""
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error: step ") and done.stderr.count("\n") == 1
    step = named_step(done.stderr.removeprefix("error: "))
    assert ids_of(root / "data/prepared/textures", batch_size, step - 1) in done.stderr
    (checkpoint,) = (root / ".work/checkpoints").glob("*textures*")
    state = Checkpoint(checkpoint).load()
    assert state is not None and 0 < state["step"] < step
    assert_finite(state[kept])
    assert not list(root.rglob("history.csv"))


# ------------------------------------------------------------------------------------------ signals


def test_a_signal_saves_between_two_steps_and_a_rerun_goes_on(folder: Path, tmp_path: Path) -> None:
    """SIGTERM reaches a process in the middle of a training; a fork saves the imports."""
    many = SMALL.replace(steps=100_000, checkpoint_every=100_000, log_every=1)

    def train_until_stopped() -> None:
        with StopRequest() as stop:
            try:
                run(folder, Checkpoint(tmp_path / "state"), many, Console("t", tmp_path, stop))
            except Stopped:
                stop.answer()

    process = multiprocessing.get_context("fork").Process(target=train_until_stopped)
    process.start()
    assert process.pid is not None
    rows = tmp_path / "events.jsonl"
    end = time.monotonic() + 60
    while not rows.exists() or rows.read_text().count('"row"') < 3:
        assert process.is_alive() and time.monotonic() < end
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.join(timeout=60)
    assert process.exitcode == 128 + signal.SIGTERM
    state = Checkpoint(tmp_path / "state").load()
    assert state is not None and state["step"] > 0
    assert len(state["history"]) == state["step"]


# -------------------------------------------------------------------------------------- classifier


def test_a_classifier_learns_and_continues_to_the_same_numbers(
    folder: Path, tmp_path: Path
) -> None:
    whole = network()
    history = learn(folder, whole, Checkpoint(tmp_path / "a"))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert max(row["validation_accuracy"] for row in history) > 0.5
    with pytest.raises(KeyboardInterrupt):
        learn(folder, network(), Dies(tmp_path / "b"))
    with pytest.raises(Stopped):  # in the middle of the second epoch
        steps = len(ShardedDataset(folder, "train")) // LEARN.batch_size
        learn(folder, network(), Checkpoint(tmp_path / "b"), events=Seen(stop_after=steps + 9))
    resumed, seen = network(), Seen()
    again = learn(folder, resumed, Checkpoint(tmp_path / "b"), events=seen)
    assert seen.of("start")[0]["step"] == steps + 9
    assert without_seconds(again) == without_seconds(history)
    assert_equal_weights(whole, resumed)


def test_the_best_epoch_is_chosen_on_validation_images() -> None:
    rows = [(0.8, 0.5), (0.9, 0.4), (0.9, 0.3), (0.7, 0.1)]
    history = [
        {"epoch": i + 1, "validation_accuracy": a, "validation_loss": b}
        for i, (a, b) in enumerate(rows)
    ]
    assert best_epoch(history) == 3


def test_a_perfect_reconstruction_is_logged_as_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 1, 8, 8)

    def perfect(*_: Any) -> Decomposition:
        return Decomposition(images, torch.stack([images, torch.zeros_like(images)], 1))

    monkeypatch.setattr(decomposition, "_decompose", perfect)
    row = decomposition._row(1, 0.0, {}, cast(Any, None), cast(Any, None), 0)
    assert row["psnr_db"] == pytest.approx(120, abs=1e-3)
