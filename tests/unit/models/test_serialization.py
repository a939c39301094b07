"""Snapshots of a decomposition beside its model file."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dxai.models.classifiers import build_network
from dxai.models.decomposer import Decomposer
from dxai.models.serialization import (
    ModelError,
    freeze,
    load_classifier,
    load_decomposer,
    load_snapshots,
    save_decomposer,
    write_tensors,
)
from dxai.paths import SNAPSHOTS

SETTINGS: dict[str, Any] = {
    "channels": 1, "classes": 3, "image_size": 16, "branches": 3, "branch_width": 3,
    "coarsest": 8, "mapping_width": 8, "style_dim": 8, "latent_dim": 4,
}  # fmt: skip
ABOUT = {"class_names": ["a", "b", "c"], "image_size": 16, "channels": 1}


def at(step: int) -> dict[str, torch.Tensor]:
    """Weights that tell after which step they were."""
    state = Decomposer(**SETTINGS).state_dict()
    return {name: torch.full_like(value, step) for name, value in state.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A decomposition after 20 steps, kept after the 7th and the 1st, too."""
    last = freeze(Decomposer(**SETTINGS))
    last.load_state_dict(at(20))
    info = {"settings": SETTINGS, "training": {"steps": 20}, **ABOUT}
    classifier = freeze(build_network("simple", 1, 3, 16, width=4))
    described = {"arch": "simple", "options": {"width": 4}, **ABOUT}
    save_decomposer(tmp_path / "model.pt", last, info, classifier, described)
    write_tensors(tmp_path / SNAPSHOTS, {"kind": "snapshots", "steps": {7: at(7), 1: at(1)}})
    return tmp_path


def test_each_kept_step_in_order_and_the_last_one_last(folder: Path) -> None:
    found = [
        (step, copy.deepcopy(network.state_dict())) for step, network in load_snapshots(folder)
    ]
    assert [step for step, _ in found] == [1, 7, 20]
    for step, state in found:
        assert all((value == step).all() for value in state.values())


def test_networks_that_are_loaded_are_frozen(folder: Path) -> None:
    for _, network in load_snapshots(folder):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_a_missing_file_and_one_of_another_kind_are_named(folder: Path) -> None:
    (folder / SNAPSHOTS).rename(folder / "elsewhere")
    with pytest.raises(ModelError, match=r"snapshots\.pt: no such model file"):
        list(load_snapshots(folder))
    (folder / "model.pt").rename(folder / SNAPSHOTS)
    with pytest.raises(
        ModelError, match=r"snapshots\.pt: holds a? ?decomposition, not a snapshots"
    ):
        list(load_snapshots(folder))


PROGRAM = {"arch": "torch.export", "options": {}, "channels": 1, "class_names": ["a", "b"]}
PROGRAM |= {"image_size": 8}
FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({}, "it lacks info, state"),
    "no state": ({"info": PROGRAM, "state": None}, "it lacks state"),
    "empty state": ({"info": PROGRAM, "state": {}}, "written for other settings"),
    "keys": ({"info": PROGRAM, "state": {3: torch.ones(2)}}, "written for other settings"),
    "no program": ({"info": PROGRAM, "state": {"program": 3}}, "not a torch.export file"),
    "no arch": ({"info": {}, "state": {}}, "written for other settings: 'arch'"),
    "arch": ({"info": PROGRAM | {"arch": 3}, "state": {}}, "written for other settings"),
    "entry": ({"info": PROGRAM | {"options": 3}, "state": {}}, "options"),
    "adapter": ({"info": PROGRAM | {"adapter": {"size": "x"}}, "state": {}}, "size"),
    "other adapter": ({"info": PROGRAM | {"adapter": 3}, "state": {}}, "written for other"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_an_error_of_a_line(folder: Path, tmp_path: Path, case: str) -> None:
    content, said = FOREIGN[case]
    path = tmp_path / "foreign.pt"
    write_tensors(path, {"kind": "classifier", **content})
    with pytest.raises(ModelError, match=rf"^{path}: .*{said}") as error:
        load_classifier(path)
    assert "\n" not in str(error.value)
    whole = torch.load(folder / "model.pt", weights_only=True)
    for changed in (content, whole | {"classifier": content}):
        write_tensors(path, {**changed, "kind": "decomposition"})
        with pytest.raises(ModelError, match=rf"^{path}: ") as error:
            load_decomposer(path)
        assert "\n" not in str(error.value)
    write_tensors(folder / SNAPSHOTS, {"kind": "snapshots", **content})
    with pytest.raises(ModelError, match="it lacks steps"):
        list(load_snapshots(folder))


def test_weights_of_other_settings_are_refused(folder: Path) -> None:
    other = Decomposer(**{**SETTINGS, "branches": 2}).state_dict()
    write_tensors(folder / SNAPSHOTS, {"kind": "snapshots", "steps": {7: other}})
    with pytest.raises(ModelError, match="step 7 has other settings"):
        list(load_snapshots(folder))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from dxai.models.serialization import write_tensors; "
        "write_tensors(sys.argv[1], {'x': torch.arange(5)})"
    )
    write_tensors(tmp_path / "one.pt", {"x": torch.arange(5)})
    subprocess.run([sys.executable, "-c", code, tmp_path / "another.pt"], check=True)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


EARLIER = {"arch": "own_net_of_old:Net", "options": {}, "channels": 1, "class_names": ["a", "b"]}
EARLIER |= {"image_size": 8, "value_range": [-1.0, 1.0]}


def test_a_model_file_of_an_earlier_version_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's network stood in it with its range as `network_range`; a program as its bytes."""
    code = "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
    code += "        super().__init__(nn.Flatten(), nn.Linear(64, 2))\n"
    (tmp_path / "own_net_of_old.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.rand(3, 1, 8, 8)
    program = torch.export.export(network, (torch.zeros(3, 1, 8, 8),))
    torch.export.save(program, tmp_path / "net.pt2")
    content = torch.frombuffer(bytearray((tmp_path / "net.pt2").read_bytes()), dtype=torch.uint8)
    state = network.state_dict()
    files = {
        "as it is": (EARLIER, state, images),
        "with its range": (
            EARLIER | {"network_range": [0.0, 1.0]},
            {f"network.{key}": value for key, value in state.items()},
            2 * images - 1,
        ),
        "a program": (EARLIER | {"arch": "torch.export"}, {"program": content}, images),
        "a program with its range": (
            EARLIER | {"arch": "torch.export", "network_range": [0.0, 1.0]},
            {"network.program": content},
            2 * images - 1,
        ),
    }
    for name, (info, saved, given) in files.items():
        path = tmp_path / f"{name}.pt"
        write_tensors(path, {"kind": "classifier", "info": info, "state": saved})
        loaded, read = load_classifier(path, modules=["own_net_of_old"])
        torch.testing.assert_close(loaded(given), network(images), msg=name)
        assert read == info
