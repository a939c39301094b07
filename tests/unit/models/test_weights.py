"""Files of weights: the wrappings that are met with are taken and said, and others are named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dxai.models.weights import load_weights

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.fc = nn.Linear(2, classes)


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return Net().state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS: dict[str, Any] = {
    "": lambda s: s,
    "taken from its 'state_dict'": lambda s: {"state_dict": s, "epoch": 3},
    "taken from its 'model_state_dict'": lambda s: {"model_state_dict": s, "optimizer": {}},
    "taken from its 'model'": lambda s: {"model": s, "args": {"lr": 0.1}},
    "taken from its 'net'": lambda s: {"net": s, "acc": 93.0},
    "without the prefix 'module.'": lambda s: prefixed(s, "module."),
    "without the prefix 'model.'": lambda s: prefixed(s, "model."),
    "without the prefix '_orig_mod.'": lambda s: prefixed(s, "_orig_mod."),
    "without the prefix '_orig_mod.module.'": lambda s: prefixed(s, "module._orig_mod."),
    "without the prefix '.module.'": lambda s: {
        k.replace("stem.", "stem.module."): v for k, v in s.items()
    },
    "taken from its 'state_dict', without the prefix 'model.', 2 others left out (loss.weight, "
    "ema.fc.bias)": lambda s: {
        "state_dict": prefixed(s, "model.")
        | {"loss.weight": torch.ones(2), "ema.fc.bias": torch.ones(2)}
    },
}


@pytest.mark.parametrize("said", WRAPPINGS)
def test_a_wrapping_is_taken_and_said(
    state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    path, network = tmp_path / "w.pt", Net()
    torch.save(WRAPPINGS[said](state), path)
    load_weights(network, path, "classifier n:Net")
    torch.testing.assert_close(network.state_dict(), state)
    assert capsys.readouterr().out == (f"{path}: weights {said}\n" if said else "")


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module._orig_mod.", "model.module."])
def test_a_part_of_a_network_may_be_called_module(tmp_path: Path, prefix: str) -> None:
    made = [nn.ModuleDict({"body": nn.ModuleDict({"module": nn.Linear(2, 2)})}) for _ in range(2)]
    torch.save(prefixed(made[0].state_dict(), prefix), tmp_path / "w.pt")
    load_weights(made[1], tmp_path / "w.pt", "it")
    torch.testing.assert_close(made[1].state_dict(), made[0].state_dict())


def test_weights_of_an_old_torch_lack_the_count_of_batches(state: State, tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if "tracked" not in k}, tmp_path / "w.pt")
    network = Net()
    load_weights(network, tmp_path / "w.pt", "it")
    torch.testing.assert_close(network.fc.weight, state["fc.weight"])


def safetensors(state: State) -> bytes:
    """The format's own writing, as its specification describes it."""
    names = {torch.float32: "F32", torch.int64: "I64", torch.float16: "F16"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    values = b""
    for key, value in state.items():
        data = value.contiguous().numpy().tobytes()
        header[key] = {"dtype": names[value.dtype], "shape": list(value.shape)}
        header[key]["data_offsets"] = [len(values), len(values) + len(data)]
        values += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def test_safetensors_are_read(state: State, tmp_path: Path) -> None:
    path, network = tmp_path / "model.safetensors", Net()
    path.write_bytes(safetensors(prefixed(state, "model.")))
    load_weights(network, path, "it")
    torch.testing.assert_close(network.state_dict(), state)


def test_weights_in_half_precision_are_read(state: State, tmp_path: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    (tmp_path / "w.safetensors").write_bytes(safetensors(half))
    network = Net()
    load_weights(network, tmp_path / "w.safetensors", "it")
    assert network.fc.weight.dtype == torch.float32
    torch.testing.assert_close(network.fc.weight, state["fc.weight"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("cut", [0, 4, 8, 60, -3])
def test_a_damaged_safetensors_file_is_named(state: State, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors(state)[:cut])
    with pytest.raises(ValueError, match=r"w\.safetensors: not a safetensors file") as error:
        load_weights(Net(), path, "it")
    assert "\n" not in str(error.value)


OTHER: dict[str, Any] = {
    r"its 7 keys all begin with 'encoder\.' \(encoder\.stem\.0\.weight, encoder\.stem\.0\.bias, "
    r"encoder\.stem\.1\.weight, \.\.\); the network's are stem\.0\.weight": lambda s: {
        "encoder." + k: v for k, v in s.items() if not k.endswith(("tracked", "fc.bias"))
    },
    r"its 2 keys have no common prefix \(a\.weight, b\.weight\)": lambda s: {
        "a.weight": torch.ones(1),
        "b.weight": torch.ones(1),
    },
    r"it lacks 2 \(fc\.weight, fc\.bias\)": lambda s: {
        k: v for k, v in s.items() if not k.startswith("fc")
    },
    r"the network has no head\.weight \(1 keys\)": lambda s: s | {"head.weight": torch.ones(1)},
    r"fc\.weight is \(5, 2\), in the network \(2, 2\), and 1 others differ": lambda s: Net(
        5
    ).state_dict(),
    r"holds no state dict under state_dict, .*, but epoch, ema; a state dict stands under ema": (
        lambda s: {"epoch": 3, "ema": s}
    ),
    "holds list, not a state dict": lambda s: [1, 2],
    r"not a weights file that loads safely .*torch\.save\(network\.state_dict\(\), file\)": (
        lambda s: Net()
    ),
}


@pytest.mark.parametrize("said", OTHER)
def test_weights_that_do_not_fit_are_described_in_a_line(
    state: State, tmp_path: Path, said: str
) -> None:
    torch.save(OTHER[said](state), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=rf"w\.pt: .*{said}") as error:
        load_weights(Net(), tmp_path / "w.pt", "classifier n:Net")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a folder; name the weights file in it"):
        load_weights(Net(), tmp_path, "it")
    with pytest.raises(FileNotFoundError, match=r"w\.pt: no such weights file"):
        load_weights(Net(), tmp_path / "w.pt", "it")
