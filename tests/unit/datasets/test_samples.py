"""The small sets that layouts draw: repeatable, their truth where it is said to be, learnable."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dxai.datasets import LAYOUTS, ShardedDataset, prepare
from dxai.datasets.samples import afhq, brats, celeba, dota, fruits360, noise, shapes
from dxai.models.classifiers import build_classifier
from dxai.params import load_params
from dxai.profiles import select_profile
from dxai.training.classifier import initial_seed, score, train_classifier
from dxai.training.state import Checkpoint

ROOT = Path(__file__).parents[3]
SAMPLES = {
    "afhq": afhq.draw,
    "brats": brats.draw,
    "celeba": celeba.draw,
    "dota": dota.draw,
    "folder": shapes.draw,
    "fruits360": fruits360.draw,
    "noise": noise.draw,
}


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_every_drawn_layout_has_a_sample_here() -> None:
    drawn = {name for name, layout in LAYOUTS.items() if layout.draw is not None}
    assert drawn == SAMPLES.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["afhq", "celeba", "noise", "dota", "brats", "peppers", "tomatoes", "apples", "shapes"],
)
def test_a_small_classifier_learns_each_sample(name: str, tmp_path: Path) -> None:
    """The class is in the pictures, and is still there at 32 px: above 0.9 on test images."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    select_profile(tmp_path / "params.yaml", "quick", datasets=[name], classifiers=["simple"])
    params = load_params(tmp_path / "params.yaml")
    assert params.prepare.image_size == 32
    prepare(name, params, tmp_path / name, tmp_path / "work")
    train, validation, test = (
        ShardedDataset(tmp_path / name, split) for split in ("train", "validation", "test")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(initial_seed(0))
        network = build_classifier("simple", train.channels, len(train.class_names), 32)
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    settings = params.classifier_for(name)
    train_classifier(network, settings, train, validation, 0, checkpoint, name)
    assert score(network, test)[1] > 0.9
