"""Interrupting and continuing, on a small prepared dataset."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from dxai.datasets.shards import ShardedDataset
from dxai.models.classifiers import build_classifier
from dxai.params import ClassifierParams, DecomposeParams
from dxai.training import sampling
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import best_epoch, train_classifier
from dxai.training.loop import NonFiniteLoss, train
from dxai.training.step import build_networks
from tests.prepared import prepared_textures

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return prepared_textures(tmp_path_factory.mktemp("prepared"), image_size=16)


def start(folder, params=SMALL, seed=0):
    data = ShardedDataset(folder, "train")
    torch.manual_seed(0)
    classifier = build_classifier("simple", 1, 3, 16, width=4)
    return data, build_networks(params, 1, 3, 16, classifier, seed)


def run(folder, checkpoint, params=SMALL, stop_after=None):
    data, networks = start(folder, params)
    panels = []

    def on_panel(step, decomposition):
        panels.append(step)
        if step == stop_after:
            raise KeyboardInterrupt

    history = train(
        networks, params, data, ShardedDataset(folder, "validation"), 0, checkpoint, "t", on_panel
    )
    return networks, history, panels


def test_an_interrupted_training_continues_to_the_same_numbers(folder, tmp_path):
    undisturbed, history, panels = run(folder, Checkpoint(tmp_path / "a"))
    assert panels == [3, 6]
    with pytest.raises(KeyboardInterrupt):
        run(folder, Checkpoint(tmp_path / "b"), stop_after=3)  # dies after the checkpoint of step 2
    continued, again, _ = run(folder, Checkpoint(tmp_path / "b"))
    for a, b in zip(undisturbed.average.parameters(), continued.average.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(
        undisturbed.discriminator.parameters(), continued.discriminator.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    for row, other in zip(history, again, strict=True):
        row, other = row | {"seconds": 0}, other | {"seconds": 0}
        assert row == other


def test_a_step_reads_the_images_that_its_number_says():
    order = sampling.Order(seed=3, n=10, batch_size=4)
    stream = np.concatenate([order.indices(step) for step in range(5)])
    assert sorted(stream[:10]) == list(range(10))  # one pass sees each image once
    assert sorted(stream[10:]) == list(range(10))
    fresh = sampling.Order(seed=3, n=10, batch_size=4)
    assert (fresh.indices(4) == order.indices(4)).all()  # whatever was asked before


def test_flips_mirror_about_half_of_the_images():
    x = torch.arange(4.0).expand(400, 1, 2, 4)
    flipped = sampling.flip(x, seed=0, step=1)
    mirrored = (flipped[:, 0, 0, 0] == 3).float()
    assert 0.4 < mirrored.mean() < 0.6
    torch.testing.assert_close(flipped[mirrored.bool()][0], x[0].flip(-1))


def test_noise_has_the_deviation_it_says():
    noisy = sampling.add_noise(torch.zeros(500, 1, 16, 16), 0.6, seed=0, step=0)
    deviations = noisy.std((1, 2, 3))
    assert deviations.max() < 0.72
    assert deviations.mean() == pytest.approx(0.3, rel=0.1)
    assert sampling.add_noise(torch.zeros(1, 1, 2, 2), 0.0, 0, 0).abs().sum() == 0


def test_contrast_is_lowered_by_at_most_its_strength():
    scaled = sampling.lower_contrast(torch.ones(500, 1, 2, 2), 0.6, seed=0, step=0)
    assert (scaled.std((1, 2, 3)) == 0).all()
    assert scaled.min() == pytest.approx(0.4, abs=0.02)
    assert scaled.mean() == pytest.approx(0.7, abs=0.02)
    assert sampling.lower_contrast(torch.ones(1, 1, 2, 2), 0.0, 0, 0).min() == 1


def test_a_loss_that_is_not_finite_stops_with_step_and_images(folder, tmp_path):
    wild = dataclasses.replace(SMALL, lr=1e30, steps=50)
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(NonFiniteLoss, match=r"step \d+: loss .* images textures|brick|grass"):
        run(folder, checkpoint, wild)


def test_a_signal_saves_between_two_steps_and_a_rerun_goes_on(folder, tmp_path):
    """SIGTERM in the middle of a real process."""
    script = textwrap.dedent(
        f"""
        import dataclasses, sys
        from tests.unit.training import test_loop as t
        from dxai.training.checkpoints import Checkpoint
        from pathlib import Path
        many = dataclasses.replace(t.SMALL, steps=100_000, checkpoint_every=100_000, log_every=1)
        print("started", flush=True)
        t.run(Path({str(folder)!r}), Checkpoint(Path({str(tmp_path)!r})), many)
        """
    )
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env
    )
    for line in process.stdout:
        if "steps," in line:  # the first progress line: some steps are done
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    state = Checkpoint(tmp_path).load()
    assert state["step"] > 0
    assert len(state["history"]) == state["step"]


def test_a_classifier_learns_and_continues_to_the_same_numbers(folder, tmp_path):
    params = ClassifierParams(epochs=3, batch_size=8, lr=5e-3, noise=0.1)
    data, validation = (ShardedDataset(folder, s) for s in ("train", "validation"))

    def network():
        torch.manual_seed(0)
        return build_classifier("simple", 1, 3, 16, width=4)

    whole = network()
    history = train_classifier(whole, params, data, validation, 0, Checkpoint(tmp_path / "a"), "t")
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert max(row["validation_accuracy"] for row in history) > 0.5

    class Dies(Checkpoint):
        def save(self, state):
            super().save(state)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_classifier(network(), params, data, validation, 0, Dies(tmp_path / "b"), "t")
    resumed = network()
    again = train_classifier(resumed, params, data, validation, 0, Checkpoint(tmp_path / "b"), "t")
    assert [r["train_loss"] for r in again] == [r["train_loss"] for r in history]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_best_epoch_is_chosen_on_validation_images():
    rows = [(0.8, 0.5), (0.9, 0.4), (0.9, 0.3), (0.7, 0.1)]
    history = [
        {"epoch": i + 1, "validation_accuracy": a, "validation_loss": b}
        for i, (a, b) in enumerate(rows)
    ]
    assert best_epoch(history) == 3
