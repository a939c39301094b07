"""Damaged files of networks end in one line, whatever is damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn

from dxai.config.schema import ClassifierSpec
from dxai.models.classifiers import build_classifier, build_network
from dxai.models.serialization import load_classifier, save_classifier
from dxai.models.weights import load_weights
from tests.unit.models.test_weights import safetensors

INFO = {"arch": "simple", "options": {}, "channels": 1, "class_names": ["a", "b"], "image_size": 8}
COUNT = 250


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A copy with bytes cut off, changed, blanked or inserted."""
    changed, start = bytearray(data), rng.randrange(len(data))
    match rng.choice(["cut", "change", "blank", "insert"]):
        case "cut":
            del changed[start:]
        case "change":
            for _ in range(rng.choice([1, 8, 200])):
                changed[rng.randrange(len(data))] = rng.randrange(256)
        case "blank":
            changed[start : start + 2000] = bytes(rng.randrange(4000))
        case "insert":
            changed[start:start] = b'"name": "x"' * rng.randrange(1, 3)
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "model.pt", "net.pt2", "net.ts"])
def test_a_damaged_file_is_an_error_of_a_line(name: str, tmp_path: Path) -> None:
    network, path = build_network("simple", 1, 2, 8), tmp_path / name
    if name == "model.pt":
        save_classifier(path, network, INFO)
    elif name == "w.safetensors":
        path.write_bytes(safetensors(network.state_dict()))
    elif name == "w.pt":
        torch.save(network.state_dict(), path)
    elif name == "net.pt2":
        torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 8, 8),)), path)
    else:
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 8, 8)), path)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(COUNT):
        path.write_bytes(mutated(whole, rng))
        try:
            read(path, network)
        except (ValueError, OSError) as error:
            refused += 1
            assert "\n" not in str(error)
            assert name in str(error)
    assert refused > COUNT / 4


def read(path: Path, network: nn.Module) -> None:
    """Read the file as what its name says."""
    if path.name == "model.pt":
        load_classifier(path)
    elif path.name.startswith("w."):
        load_weights(network, path, "it")
    else:
        arch = "torch.export" if path.suffix == ".pt2" else "torchscript"
        build_classifier(ClassifierSpec(arch=arch, weights=str(path)), 1, ["a", "b"], 8)
