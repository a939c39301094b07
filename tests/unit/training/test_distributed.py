"""N workers that share each batch equal one worker: real processes with gloo."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from scipy import stats
from torch import Tensor, nn

from dxai.config.schema import ClassifierParams, DecomposeParams
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.classifiers import build_network
from dxai.training import augment, batch_order
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import train_classifier
from dxai.training.decomposition import train
from dxai.training.distributed import ProcessGroup
from dxai.training.events import Stopped
from dxai.training.run import TrainingRun
from dxai.training.step import Networks, RandomInputs, build_networks, draw_inputs, train_step
from tests.prepared import PROJECT, prepared_textures
from tests.unit.training import test_decomposition

STEPS = 10
CURVE, WINDOW, RUNS = 60, 20, 6
"""Steps of the loss curves, those of a window, and curves on each number of workers."""
SMALL = test_decomposition.SMALL.replace(batch_size=8, branches=3, r1_every=1, r1=1.0)
SETTINGS: dict[str, tuple[bool, dict[str, Any]]] = {
    "frozen": (False, {"alpha_per": "batch"}),
    "frozen, neutral": (
        False,
        {"dis_rec_over": "batch", "r1_every": 2, "lambda_neutral": 1.0, "kld_direction": "c_d"},
    ),
    "frozen, one alpha over a mask of the batch": (
        False,
        {
            "alpha_per": "batch",
            "dis_rec_over": "batch",
            "zero_distinction": False,
            "exact_agnostic": 0.5,
            "exact_beta": 0.7,
            "lambda_agnostic_rec": 2.0,
        },
    ),
    "frozen, one head": (
        False,
        {"discriminator_heads": "single", "lambda_kld": 0.0, "normalise_input": True},
    ),
    "joint": (
        True,
        {
            "alpha_per": "batch",
            "dis_rec_over": "batch",
            "r1_every": 2,
            "exact_agnostic": 1.0,
            "exact_beta": 0.7,
            "lambda_agnostic_rec": 2.0,
        },
    ),
    "joint, neutral": (True, {"lambda_neutral": 0.5, "ema_warmup": True, "agnostic_skip": True}),
    "joint, r1 now and then": (True, {"alpha_per": "batch", "r1_every": 2, "flip": False}),
}
"""Whether C = D, and what is set otherwise; kld is on but for the single head."""
SOME = ("frozen, neutral", "joint")
OTHERS = tuple(name for name in SETTINGS if name not in SOME)


# ----------------------------------------------------------------------- what runs on each worker


def networks_of(name: str) -> tuple[DecomposeParams, Networks]:
    joint, changed = SETTINGS[name]
    params = SMALL.replace(**changed)
    torch.manual_seed(0)
    frozen = None if joint else build_network("simple", 1, 3, 16, width=4)
    return params, build_networks(params, 1, 3, 16, frozen, seed=0)


def steps_of(
    data: ShardedDataset,
    group: ProcessGroup,
    name: str,
    steps: int,
    kind: torch.dtype,
    look: Callable[[int, Networks, dict[str, Tensor]], None],
    change: Callable[[Networks], None] = lambda networks: None,
) -> Networks:
    """Take steps as `train` does, in some precision."""
    params, networks = networks_of(name)
    for part in ("decomposer", "discriminator", "average", "average_discriminator", "classifier"):
        if getattr(networks, part) is not None:
            getattr(networks, part).to(kind)
    change(networks)
    order, share = (
        batch_order.Order.over(data, 0, params.batch_size),
        group.share(params.batch_size),
    )
    for step in range(steps):
        batch = data.batch(order.indices(step, share))
        x = augment.flip(batch.images, 0, step, share) if params.flip else batch.images
        drawn = draw_inputs(params, 0, step, batch.labels, 3, share)
        drawn = RandomInputs(
            *(v.to(kind) if v.is_floating_point() else v for v in vars(drawn).values())
        )
        losses = train_step(networks, params, x.to(kind), batch.labels, drawn, step, group)
        look(step, networks, losses)
    return networks


def flat(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """Map the path of every floating-point tensor in a nested state to it."""
    found = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, Tensor) and value.is_floating_point():
            found[f"{prefix}{key}"] = value.clone()
    return found


def decompositions(
    data: ShardedDataset, group: ProcessGroup, names: tuple[str, ...]
) -> dict[str, Any]:
    """Train with settings in float64: the state after some steps and the losses of each."""
    found = {}
    for name in names:
        losses: list[dict[str, Tensor]] = []

        def look(
            step: int,
            networks: Networks,
            terms: dict[str, Tensor],
            losses: list[dict[str, Tensor]] = losses,
        ) -> None:
            losses.append({key: group.mean(value) for key, value in terms.items()})

        networks = steps_of(data, group, name, STEPS, torch.float64, look)
        found[name] = {"state": flat(networks.state_dict()), "losses": losses}
    return found


def gradients(data: ShardedDataset, group: ProcessGroup) -> dict[str, Any]:
    """Compute the gradients of the first step in float32 with every setting."""
    found = {}
    for name in SETTINGS:
        networks = steps_of(data, group, name, 1, torch.float32, lambda *_: None)
        found[name] = {
            f"{part}.{key}": parameter.grad
            for part in ("decomposer", "discriminator")
            for key, parameter in getattr(networks, part).named_parameters()
        }
    return found


def curves(data: ShardedDataset, group: ProcessGroup) -> dict[str, Tensor]:
    """Return mean losses over windows in float32, each of shape (runs, windows).

    Runs differ in the last digit of their first weights, and so do those on other workers.
    """
    found: dict[str, list[Tensor]] = {}
    for run in range(RUNS):
        rows: list[dict[str, Tensor]] = []

        def nudge(networks: Networks, run: int = run) -> None:
            generator = torch.Generator().manual_seed(1000 * group.size + run)
            for network in (networks.decomposer, networks.discriminator):
                for weight in network.parameters():
                    noise = torch.randn(weight.shape, generator=generator)
                    weight.data.mul_(1 + 1e-7 * noise)

        def look(*seen: Any, rows: list[dict[str, Tensor]] = rows) -> None:
            rows.append(seen[2])

        steps_of(data, group, "frozen, neutral", CURVE, torch.float32, look, nudge)
        for name in sorted(rows[0].keys() & rows[1].keys()):  # r1 is not taken at every step
            curve = group.mean(torch.stack([row[name] for row in rows]))
            found.setdefault(name, []).append(curve.view(-1, WINDOW).mean(1))
    return {name: torch.stack(means) for name, means in found.items()}


def batch_norms(group: ProcessGroup) -> dict[str, Any]:
    """Return outputs, gradients and statistics of several batch norms for three batches."""
    generator = torch.Generator().manual_seed(0)
    kinds: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "1d": (nn.BatchNorm1d(3), ()),
        "1d with an axis": (nn.BatchNorm1d(3), (5,)),
        "2d": (nn.BatchNorm2d(3), (5, 4)),
        "3d": (nn.BatchNorm3d(3), (2, 3, 4)),
        "cumulative": (nn.BatchNorm2d(3, momentum=None), (5, 4)),
        "fixed": (nn.BatchNorm2d(3, momentum=0.0), (5, 4)),
        "plain": (nn.BatchNorm2d(3, affine=False, eps=0.1), (5, 4)),
        "without memory": (nn.BatchNorm2d(3, track_running_stats=False), (5, 4)),
    }
    found = {}
    for name, (norm, shape) in kinds.items():
        norm.double()
        for parameter in norm.parameters():
            parameter.data.uniform_(0.5, 1.5, generator=generator)
        network = group.synchronise_batch_norm(nn.Sequential(norm))
        share, results = group.share(8), []
        for _ in range(3):
            whole = 3 + 2 * torch.randn(8, 3, *shape, generator=generator, dtype=torch.float64)
            weight = torch.randn(8, 3, *shape, generator=generator, dtype=torch.float64)
            x = whole[share.start : share.stop].requires_grad_()
            out = network(x)
            # Sums over the batch, as a mean over it would be up to a number.
            (out.sin() * weight[share.start : share.stop]).sum().backward()
            results += [out.detach(), x.grad]
        if norm.affine:
            group.average_gradients(network.parameters())
        summed = [p.grad * group.size for p in network.parameters() if p.grad is not None]
        network.eval()
        if norm.running_mean is not None:
            results.append(network(whole[share.start : share.stop]).detach())
        buffers = {key: value.double() for key, value in network.state_dict().items()}
        found[name] = {"parts": results, "gradients": summed, "buffers": buffers}
    return found


class Double(nn.Module):
    """A network that computes in float64."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.double())


def resnet(folder: Path, group: ProcessGroup, out: Path) -> dict[str, Tensor]:
    """Train a classifier with batch norm for some steps in float64."""
    data, validation = (ShardedDataset(folder, split) for split in ("train", "validation"))
    torch.manual_seed(0)
    network = Double(build_network("resnet18", 1, 3, 16))
    params = ClassifierParams(batch_size=8, noise=0.1, contrast=0.1)
    events = test_decomposition.Seen(stop_after=6)
    with contextlib.suppress(Stopped):
        train_classifier(
            network, params, TrainingRun(data, validation, 0, Checkpoint(out), events, group)
        )
    return flat(network.state_dict())


def loops(folder: Path, group: ProcessGroup, out: Path) -> dict[str, Any]:
    """Run both loops: stopped, resumed, and with numbers that go wrong."""
    data, validation = (ShardedDataset(folder, split) for split in ("train", "validation"))
    found: dict[str, Any] = {"told": {}}

    def decompose(checkpoint: str, events: test_decomposition.Seen, **changed: Any) -> Any:
        params = SMALL.replace(**changed)
        _, networks = test_decomposition.start(folder, params)
        kept = Checkpoint(out / checkpoint)
        return train(
            networks, params, TrainingRun(data, validation, 0, kept, events, group)
        ), networks

    def classify(checkpoint: str, events: test_decomposition.Seen, **changed: Any) -> Any:
        params, network = (
            test_decomposition.LEARN.replace(**changed),
            test_decomposition.network(),
        )
        kept = Checkpoint(out / checkpoint)
        return train_classifier(
            network, params, TrainingRun(data, validation, 0, kept, events, group)
        ), network

    def told(call: Callable[..., Any], *values: Any, **changed: Any) -> str:
        try:
            call(*values, **changed)
        except (Stopped, ValueError) as error:
            return str(error)
        return "no error"

    for name, call in (("decompose", decompose), ("classify", classify)):
        # The first worker's events alone can stop them.
        events = test_decomposition.Seen(stop_after=5 if group.rank == 0 else None)
        found["told"][f"{name}: stop"] = told(call, f"{name}-stopped", events)
        history, networks = call(f"{name}-stopped", test_decomposition.Seen())
        found[f"{name}: history"] = history
        found[f"{name}: weights"] = flat(networks.state_dict())
        events = test_decomposition.Seen()
        found["told"][f"{name}: wild"] = told(call, f"{name}-wild", events, lr=1e30)
    return found


def poisoned(folder: Path, group: ProcessGroup, out: Path) -> dict[str, str]:
    """Let the last worker's weights go wrong, and through the next loss those of all."""
    data, validation = (ShardedDataset(folder, split) for split in ("train", "validation"))
    found = {}
    last = group.rank == group.size - 1
    for value in (math.nan, math.inf):
        _, networks = test_decomposition.start(folder, SMALL)
        network = test_decomposition.network()
        for name, weights, call in (
            ("decompose", networks.discriminator, train),
            ("classify", network, train_classifier),
        ):
            events = test_decomposition.Seen()
            if last:
                events = test_decomposition.Poisoned(next(weights.parameters()), value, after=3)
            params = SMALL if name == "decompose" else test_decomposition.LEARN
            subject = networks if name == "decompose" else network
            kept = Checkpoint(out / f"{name}-{value}")
            try:
                given = TrainingRun(data, validation, 0, kept, events, group)
                call(subject, params, given)  # type: ignore
            except ValueError as error:
                found[f"{name}: {value}"] = str(error)
    return found


def work(rank: int, size: int, folder: Path, out: Path, tasks: tuple[str, ...]) -> None:
    """Do the tasks as one worker, and write the results to rank-<rank>.pt."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{out}/meet", rank=rank, world_size=size)
    group, data = ProcessGroup(rank, size), ShardedDataset(folder, "train")
    known: dict[str, Callable[[], Any]] = {
        "some": lambda: decompositions(data, group, SOME),
        "others": lambda: decompositions(data, group, OTHERS),
        "gradients": lambda: gradients(data, group),
        "curves": lambda: curves(data, group),
        "batch_norms": lambda: batch_norms(group),
        "resnet": lambda: resnet(folder, group, out / "resnet"),
        "loops": lambda: loops(folder, group, out / "loops"),
        "poisoned": lambda: poisoned(folder, group, out / "poisoned"),
    }
    torch.save({task: known[task]() for task in tasks}, out / f"rank-{rank}.pt")
    if size > 1:
        dist.barrier()
        dist.destroy_process_group()


# ------------------------------------------------------------------------------------------- tests


GROUPS = (
    ("some", "gradients", "batch_norms", "loops", "poisoned"),
    ("others",),
    ("curves", "resnet"),
)
"""Tasks that the same processes do; the first of them in each quick run of the tests."""


class Workers:
    """Run groups of tasks on some numbers of workers, each once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = prepared_textures(root, image_size=16)
        self._found: dict[tuple[int, str], list[Any]] = {}

    def __call__(self, size: int, task: str) -> list[Any]:
        """Return the results of each of `size` workers."""
        if (size, task) not in self._found:
            (tasks,) = (tasks for tasks in GROUPS if task in tasks)
            self._run({1, size} if (1, task) not in self._found else {size}, tasks)
        return self._found[size, task]

    def _run(self, sizes: set[int], tasks: tuple[str, ...]) -> None:
        """Run several workers in processes, and a single one here meanwhile."""
        running = {size: self._start(size, tasks) for size in sizes - {1}}
        folders = [self.root / f"{size}-{tasks[0]}" for size in sizes]
        if 1 in sizes:
            (self.root / f"1-{tasks[0]}").mkdir()
            work(0, 1, self.folder, self.root / f"1-{tasks[0]}", tasks)
        for size, processes in running.items():
            out = self.root / f"{size}-{tasks[0]}"
            try:
                codes = [process.wait(timeout=250) for process in processes]
            finally:
                for process in processes:
                    process.kill()
            said = [path.read_text()[-3000:] for path in sorted(out.glob("*.log"))]
            assert not any(codes), "\n".join(said)
        for out in folders:
            size = int(out.name.split("-")[0])
            found = [torch.load(out / f"rank-{rank}.pt") for rank in range(size)]
            for task in tasks:
                self._found[size, task] = [worker[task] for worker in found]

    def _start(self, size: int, tasks: tuple[str, ...]) -> list[subprocess.Popen[bytes]]:
        out = self.root / f"{size}-{tasks[0]}"
        out.mkdir()
        code = (
            "from pathlib import Path; from tests.unit.training import test_distributed as t; "
            f"t.work(RANK, {size}, Path({str(self.folder)!r}), Path({str(out)!r}), {tasks!r})"
        )
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "GLOO_SOCKET_IFNAME": "lo"}
        processes = []
        for rank in range(size):
            with (out / f"{rank}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", code.replace("RANK", str(rank))],
                        cwd=PROJECT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip
        return processes


SIZES = [pytest.param(size, marks=pytest.mark.slow) for size in (2, 4)]
CASES = [
    *(pytest.param(name, 2, marks=pytest.mark.slow) for name in SETTINGS),
    *(pytest.param(name, 4, marks=pytest.mark.slow) for name in SOME),
]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Workers:
    return Workers(tmp_path_factory.mktemp("workers"))


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return the distance of two tensors, relative to the second one's length."""
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-300))


def largest(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> tuple[float, str]:
    """Return the largest difference of two groups of tensors, and its path."""
    assert found.keys() == wanted.keys()
    return max((difference(found[name], wanted[name]), name) for name in wanted)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_the_weights_are_those_of_one_worker(name: str, size: int, workers: Workers) -> None:
    """All networks, averages and optimisers agree after ten steps in float64 on each worker."""
    task = "some" if name in SOME else "others"
    found, (wanted,) = workers(size, task), workers(1, task)
    for worker in found:
        worst, where = largest(worker[name]["state"], wanted[name]["state"])
        assert worst < 1e-6, where
        rows = zip(worker[name]["losses"], wanted[name]["losses"], strict=True)
        for step, (row, other) in enumerate(rows):
            assert row.keys() == other.keys()
            assert ("r1" in row) == (step % SETTINGS[name][1].get("r1_every", 1) == 0)
            for key in row:
                assert row[key].dtype == torch.float64  # nowhere on the way was it less
                torch.testing.assert_close(row[key], other[key], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_what_is_compared_moves(workers: Workers) -> None:
    """Every setting changes every tensor of the state differently."""
    (found,) = workers(1, "some")
    last = [round(float(found[name]["losses"][-1]["total"]), 6) for name in SOME]
    assert len(set(last)) == len(last)
    for name in SOME:
        before = flat(networks_of(name)[1].state_dict())
        state = found[name]["state"]
        assert any("exp_avg_sq" in key for key in state)
        moved = [not torch.equal(value.double(), state[key]) for key, value in before.items()]
        assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_first_gradients_in_float32_are_those_of_one_worker(
    name: str, size: int, workers: Workers
) -> None:
    """Later ones differ: Adam with beta1 = 0 divides a rounding error by itself."""
    found, (wanted,) = workers(size, "gradients"), workers(1, "gradients")
    for worker in found:
        for part in ("decomposer", "discriminator"):
            one, other = (
                torch.cat([v.flatten() for k, v in tasks[name].items() if k.startswith(part)])
                for tasks in (worker, wanted)
            )
            assert difference(one, other) < 1e-5


@pytest.mark.slow
def test_loss_curves_in_float32_are_statistically_the_same(workers: Workers) -> None:
    """Rounding separates runs, but the means of one and two workers agree within chance."""
    found, (wanted,) = workers(2, "curves"), workers(1, "curves")
    assert found[0].keys() == wanted.keys() and len(wanted) >= 8
    chances = []
    for name, means in wanted.items():
        assert torch.equal(found[0][name], found[1][name])
        assert means.std(0)[-1] > 0  # runs do differ
        chances += list(stats.ttest_ind(found[0][name], means, equal_var=False).pvalue)
    assert min(chances) * len(chances) > 0.01


@pytest.mark.parametrize("size", SIZES)
def test_batch_norms_see_the_whole_batch(size: int, workers: Workers) -> None:
    """Outputs, gradients, running statistics and eval mode equal torch's on one worker."""
    found, (wanted,) = workers(size, "batch_norms"), workers(1, "batch_norms")
    for name in wanted:
        for index, whole in enumerate(wanted[name]["parts"]):
            joined = torch.cat([worker[name]["parts"][index] for worker in found])
            torch.testing.assert_close(joined, whole, rtol=1e-10, atol=1e-12)
        for worker in found:
            for kind in ("gradients", "buffers"):
                torch.testing.assert_close(
                    worker[name][kind], wanted[name][kind], rtol=1e-10, atol=1e-12
                )


def test_a_batch_norm_of_its_own_kind_is_refused() -> None:
    class Mine(nn.BatchNorm2d):
        """A batch norm that computes something else."""

    with pytest.raises(ValueError, match=r"batch norm Mine .* training\.workers: 1"):
        ProcessGroup(0, 2).synchronise_batch_norm(nn.Sequential(Mine(3)))
    ProcessGroup().synchronise_batch_norm(nn.Sequential(Mine(3)))


@pytest.mark.slow
def test_a_classifier_with_batch_norm_is_that_of_one_worker(workers: Workers) -> None:
    found, (wanted,) = workers(2, "resnet"), workers(1, "resnet")
    assert any("running_var" in name for name in wanted)
    for worker in found:
        worst, where = largest(worker, wanted)
        assert worst < 1e-6, where


@pytest.mark.parametrize("size", SIZES)
def test_the_loops_stop_and_go_on_together(size: int, workers: Workers) -> None:
    found, (wanted,) = workers(size, "loops"), workers(1, "loops")
    for loop in ("decompose", "classify"):
        assert {w["told"][f"{loop}: stop"] for w in found} == {"stopped after step 5"}
        for worker in found:
            # float32: workers agree to the bit, and with one worker to what rounding leaves
            weights = worker[f"{loop}: weights"]
            assert largest(weights, found[0][f"{loop}: weights"])[0] == 0
            one, other = (
                torch.cat([value.flatten() for value in tasks.values()])
                for tasks in (weights, wanted[f"{loop}: weights"])
            )
            assert difference(one, other) < 1e-3
    # The first worker keeps it.
    rows = zip(found[0]["decompose: history"], wanted["decompose: history"], strict=True)
    for row, other in rows:
        assert row.keys() == other.keys()
        assert row["loss/rec"] == pytest.approx(other["loss/rec"], rel=0.02)
    for row, other in zip(found[-1]["classify: history"], wanted["classify: history"], strict=True):
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(other[name], rel=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_all_workers_stop_at_the_same_wrong_number(size: int, workers: Workers) -> None:
    """All have the same message, which names the images of the whole batch."""
    order = batch_order.Order.over(data := ShardedDataset(workers.folder, "train"), 0, 8)
    loops, poisoned = ([w for w in workers(size, task)] for task in ("loops", "poisoned"))
    wild = [{k: v for k, v in w["told"].items() if "wild" in k} for w in loops]
    for found in (wild, poisoned):
        assert all(worker == found[0] for worker in found)
        for message in found[0].values():
            step = test_decomposition.named_step(message)
            ids = ", ".join(data.ids[i] for i in order.indices(step - 1))
            assert f"images {ids};" in message
    assert wild[0].keys() == {"decompose: wild", "classify: wild"}
    assert poisoned[0].keys() == workers(1, "poisoned")[0].keys() and len(poisoned[0]) == 4
    assert {test_decomposition.named_step(message) for message in poisoned[0].values()} == {4}


def test_a_batch_that_cannot_be_shared_equally() -> None:
    assert [list(ProcessGroup(rank, 3).share(6)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match=r"8 images cannot .* by 3 workers; .* 1, 2, 4, 8$"):
        ProcessGroup(0, 3).share(8)
