"""The stage `classifier` with networks of a user's: what is trained, what is taken as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dxai.config.params_file import format_params, load_params
from dxai.config.profiles import load_profile
from dxai.models.serialization import load_classifier
from dxai.paths import HERE, METRICS, MODEL
from dxai.stages import classifier
from dxai.utils.files import read_json
from tests.prepared import prepared_textures

NETS = '''
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, seed=None):
        super().__init__()
        if seed is not None:
            torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.Linear(7, 3)
        self.head = nn.Linear(4, 3)

    def features(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))

class Heads(Net):
    """Returns a second head's logits in training only."""

    def forward(self, x):
        y = super().forward(x)
        return (y, y + 1) if self.training else y

class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)

class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

class HeadAlone(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)
        self.head.requires_grad_()

class Normed(Net):
    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv)
        nn.utils.parametrizations.spectral_norm(self.head)

class Half(Net):
    def __init__(self):
        super().__init__()
        self.half()

class Position(Net):
    def __init__(self, seed=None):
        super().__init__(seed)
        self.position = nn.Parameter(torch.randn(1, 1, 16, 16))

    def forward(self, x):
        return super().forward(x + self.position)

def brings(kind="Net"):
    return globals()[kind](seed=5)
'''


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    prepared_textures(root)
    return root


@pytest.fixture
def project(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Textures at 16 px, a module of networks, and weights of two of them."""
    shutil.copytree(data, tmp_path / "data/prepared")
    (tmp_path / "users_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "users_nets", raising=False)
    import users_nets  # type: ignore[import-not-found]

    for seed in (1, 2):
        torch.save(users_nets.Net(seed).state_dict(), f"{seed}.pt")
    return tmp_path


def run(role: str = "explained", **entry: Any) -> dict[str, Any]:
    """Write params.yaml with this classifier, run the stage, and return its metrics."""
    values = load_profile("smoke")
    spec = {"arch": "users_nets:Net", "files": ["users_nets.py", "1.pt", "2.pt"]} | entry
    values |= {"classifiers": {"mine": spec}, "joint": {}}
    values["ablations"]["classifiers"] = values["repeat"]["classifiers"] = []
    values["classifier"] |= {"epochs": 1}
    values["training"] |= {"executor": "local"}
    Path("params.yaml").write_text(format_params(values))
    classifier.main("textures", "mine", role)
    return dict(read_json(HERE.classifier("textures", "mine", role) / METRICS))


def saved(role: str = "explained") -> dict[str, torch.Tensor]:
    """Return the state dict of what the stage wrote."""
    folder = HERE.classifier("textures", "mine", role)
    return load_classifier(folder, load_params().modules)[0].state_dict()


def made(arch: str, *arguments: Any) -> dict[str, torch.Tensor]:
    import users_nets

    return dict(getattr(users_nets, arch)(*arguments).state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    return [key for key in one if torch.equal(one[key], other[key])]


def test_given_weights_are_not_trained(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifier, "check_classifier", lambda *_: [])  # they are no good
    metrics = run(weights="1.pt")
    assert metrics["epochs"] == 0 and 0 < metrics["random_auc"] < 2
    lowest = min(metrics["random_auc"], metrics["random_signed_auc"])
    assert lowest > 0
    said = capsys.readouterr().out
    assert "mine explained: taken as it is, with 1.pt" in said
    assert f" leaves {lowest:.2f} of its accuracy on" in said
    assert len(equal(saved(), made("Net", 1))) == len(saved())


def test_a_network_that_brings_its_weights_is_trained_or_taken_as_the_entry_says(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arch="users_nets:brings")["epochs"] == 1
    said = capsys.readouterr().out
    assert "trained here from the weights that it brings; `train: false` takes it as it is" in said
    monkeypatch.setattr(classifier, "check_classifier", lambda *_: [])
    assert run(arch="users_nets:brings", train=False)["epochs"] == 0
    assert len(equal(saved(), made("brings"))) == len(saved())


@pytest.mark.parametrize(
    ("entry", "role", "said"),
    [
        ({"train": False}, "explained", "train is false, but the network draws new weights"),
        ({"arch": "users_nets:Frozen"}, "explained", "all its weights are frozen: set `train: f"),
        ({"arch": "users_nets:Half"}, "explained", "float16 is too coarse to train"),
        ({"arch": "users_nets:Softmax"}, "explained", "set `activation: softmax`"),
        ({"arch": "users_nets:Softmax"}, "twin", "set `activation: softmax`"),
        ({"weights": "1.pt"}, "explained", "accuracy 0.* is no better than chance"),
        (
            {"arch": "users_nets:brings", "options": {"kind": "Position"}},
            "twin",
            "it brings position, .* set `twin: false`",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_refused_before_anything_trains(
    project: Path, entry: dict[str, Any], role: str, said: str
) -> None:
    with pytest.raises(ValueError, match=rf"classifiers\.mine: .*{said}"):
        run(role, **entry)
    assert not HERE.unfinished.exists()


@pytest.mark.parametrize("arch", ["Heads", "HeadAlone", "Normed"])
def test_unusual_networks_are_trained(project: Path, arch: str) -> None:
    assert run(arch=f"users_nets:{arch}")["epochs"] == 1
    before = made(arch)
    assert before.keys() == saved().keys()
    assert "head.bias" not in equal(saved(), before)


def test_a_frozen_network_is_trained_if_the_entry_says_so(project: Path) -> None:
    assert run(arch="users_nets:Frozen", train=True)["epochs"] == 1


# ------------------------------------------------------------------------------------ twins
@pytest.mark.parametrize(
    "entry",
    [
        {"weights": "1.pt"},
        {"weights": "1.pt", "arch": "users_nets:Frozen"},
        {"arch": "users_nets:brings"},
        {"arch": "users_nets:brings", "train": False},
    ],
)
def test_a_twin_is_trained_from_other_weights(project: Path, entry: dict[str, Any]) -> None:
    """All of them: none is frozen, and none is that of the explained network."""
    assert run("twin", **entry)["epochs"] == 1
    own = made("brings") if "weights" not in entry else made("Net", 1)
    constant = {"norm.num_batches_tracked"}
    assert set(equal(saved("twin"), own)) <= constant


def test_a_twin_may_have_weights_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "check_classifier", lambda *_: [])
    assert run("twin", weights="1.pt", twin="2.pt")["epochs"] == 0
    assert len(equal(saved("twin"), made("Net", 2))) == len(saved("twin"))
    shutil.copy("1.pt", "2.pt")
    with pytest.raises(ValueError, match=r"twin: 2\.pt holds the weights of the classifier itse"):
        run("twin", weights="1.pt", twin="2.pt")


def test_no_twin(project: Path) -> None:
    assert run("twin", weights="1.pt", twin=False) == {"twin": "none"}
    assert not (HERE.classifier("textures", "mine", "twin") / MODEL).exists()


@pytest.mark.parametrize("given", [{}, {"width": 4}])
def test_the_twin_of_a_discriminator_is_as_wide_unless_an_option_says_so(
    project: Path, given: dict[str, int]
) -> None:
    values = load_profile("smoke")
    values |= {"classifiers": {}, "joint": {"joint": {"arch": "joint", "options": given}}}
    values["ablations"]["classifiers"] = values["repeat"]["classifiers"] = []
    values["classifier"] |= {"epochs": 1}
    values["decompose"] |= {"discriminator_width": 6}
    values["training"] |= {"executor": "local"}
    Path("params.yaml").write_text(format_params(values))
    classifier.main("textures", "joint", "twin")
    twin = load_classifier(HERE.classifier("textures", "joint", "twin"), ())[0]
    stem = twin.state_dict()["stem.weight"]
    assert len(stem) == given.get("width", 6)
