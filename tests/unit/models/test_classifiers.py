import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dxai.config.schema import ClassifierSpec
from dxai.models.blocks import channels_last
from dxai.models.classifiers import CLASSIFIERS, build_classifier, build_network
from dxai.models.discriminator import Discriminator
from dxai.models.serialization import (
    ModelError,
    load_classifier,
    load_decomposer,
    save_classifier,
    write_tensors,
)

PROJECT = Path(__file__).parents[3]
SMALL = {"width": 4}


@pytest.mark.parametrize("arch", CLASSIFIERS)
@pytest.mark.parametrize(
    ("channels", "classes", "size"),
    [
        (1, 2, 16),
        (1, 2, 17),
        (3, 5, 32),
        (1, 3, 33),
        (1, 3, 96),
        (3, 2, 100),
        (3, 4, 128),
        (1, 2, 299),
    ],
)
def test_every_classifier_returns_logits(arch, channels, classes, size):
    network = build_network(arch, channels, classes, size, **SMALL)
    assert network(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_parameter_counts_of_the_published_networks():
    resnet = build_network("resnet18", 3, 1000, 256)
    assert sum(p.numel() for p in resnet.parameters()) == 11_689_512  # torchvision's resnet18
    # Table 7: 3x3 convolutions to 16 and 32, 28*28*32 -> 128 -> c.
    simple = build_network("simple", 3, 3, 256)
    expected = (27 + 1) * 16 + (144 + 1) * 32 + (28 * 28 * 32 + 1) * 128 + 129 * 3
    assert sum(p.numel() for p in simple.parameters()) == expected


def test_discriminator_follows_table_8():
    network = Discriminator(channels=3, classes=4, image_size=256)
    widths = [network.stem.out_channels, *(b.conv2.out_channels for b in network.blocks)]
    assert widths == [64, 128, 256, 512, 512, 512, 512]
    # The stem is 3x3: the table's 1x1 and the text of the released architecture differ.
    assert network.stem.kernel_size == (3, 3)
    features = network.blocks(network.stem(torch.zeros(1, 3, 256, 256)))
    assert features.shape == (1, 512, 4, 4)


def test_unknown_names_and_options_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="resnet18"):
        build_network("resnet19", 1, 2, 32)
    with pytest.raises(ValueError, match="depth"):
        build_network("simple", 1, 2, 32, depth=3)
    with pytest.raises(ValueError, match="no_such_module"):
        build_network("no_such_module:Net", 1, 2, 32)
    with pytest.raises(ValueError, match=r"prepare\.image_size is 7"):
        build_network("discriminator", 1, 2, 7)


USER_CODE = """
import torch
class Net(torch.nn.Module):
    def __init__(self, hidden, classes=2):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, hidden), torch.nn.Linear(hidden, classes))
        self.seen = None
    def forward(self, x):
        self.seen = x
        return self.body(x)
"""


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "user_network.py").write_text(USER_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    return "user_network:Net"


def own(arch, **entry):
    return ClassifierSpec(arch=arch, options={"hidden": 3}, **entry)


def test_a_users_network_with_weights_and_value_range(user_module, tmp_path):
    import user_network

    trained = user_network.Net(hidden=3)
    weights = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), weights)
    spec = own(user_module, weights=str(weights), value_range=[0, 1])
    network = build_classifier(spec, 1, "ab", 8)
    x = torch.rand(2, 1, 8, 8) * 2 - 1
    torch.testing.assert_close(network(x), trained((x + 1) / 2))
    with pytest.raises(ValueError, match=r"weights\.pt: does not fit"):
        build_classifier(spec.replace(options={"hidden": 4}), 1, "ab", 8)


VIEWING = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4 * 36, 2)
    def forward(self, x):
        return self.head(self.conv(x).view(len(x), -1))  # refuses channels_last features
"""


def test_a_users_network_keeps_its_memory_format(tmp_path, monkeypatch):
    (tmp_path / "viewing_network.py").write_text(VIEWING)
    monkeypatch.syspath_prepend(tmp_path)
    spec = ClassifierSpec(arch="viewing_network:Net")
    network = channels_last(build_classifier(spec, 3, "ab", 8))
    x = torch.randn(2, 3, 8, 8)
    expected = network(x)
    for asked in (network, copy.deepcopy(network)):
        found = asked(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(found, expected)


TRAINED = """
import copy, sys, torch
from dxai.models.blocks import channels_last, default_format
from dxai.models.classifiers import ResNet18
width, channels, brought = map(int, sys.argv[1:])
torch.manual_seed(0)
network = ResNet18(channels, 2, 64, width)
exact = copy.deepcopy(network).double()
if brought:
    network = default_format(network.to(memory_format=torch.channels_last))
network = copy.deepcopy(channels_last(channels_last(network)))
x = torch.empty(4, channels, 64, 64, memory_format=torch.channels_last).normal_()
for _ in range(3):  # what is overwritten need not be used at once
    network.zero_grad()
    network(x).square().sum().backward()
exact(x.double()).square().sum().backward()
for (name, found), wanted in zip(network.named_parameters(), exact.parameters()):
    near = torch.cosine_similarity(found.grad.double().flatten(), wanted.grad.flatten(), 0)
    assert near > 0.99, (name, near)  # rounding moves some values across the kinks of ReLU
"""


@pytest.mark.parametrize("case", ["4 3 0", "8 1 0", "8 3 1"])
def test_gradients_of_narrow_networks(case):
    """oneDNN overwrites other memory for some of their convolutions, in channels_last."""
    command = [sys.executable, "-c", TRAINED, *case.split()]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_network_that_does_not_fit_the_dataset_is_refused(user_module):
    with pytest.raises(ValueError, match="the dataset has 3 classes"):
        build_classifier(own(user_module), 1, "abc", 8)
    with pytest.raises(ValueError, match=r"refuses an image of shape \(1, 3, 8, 8\)"):
        build_classifier(own(user_module), 3, "ab", 8)


def test_weights_that_would_run_code_are_refused(user_module, tmp_path):
    whole = tmp_path / "whole.pt"
    torch.save(nn.Linear(2, 2), whole)  # a pickled module, not a state dict
    with pytest.raises(ValueError, match=r"whole\.pt: not a weights file that loads safely"):
        build_classifier(own(user_module, weights=str(whole)), 1, "ab", 8)


def info(**changed):
    return {
        "arch": "simple",
        "options": {"width": 4},
        "channels": 1,
        "class_names": ["a", "b"],
        "image_size": 16,
        "value_range": [-1.0, 1.0],
    } | changed


def test_model_files_round_trip_frozen(tmp_path):
    network = build_network("simple", 1, 2, 16, width=4)
    save_classifier(tmp_path / "model.pt", network, info())
    loaded, read = load_classifier(tmp_path)
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(loaded(x), network(x))
    assert read == info()
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_model_files_of_another_kind_or_preset_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(ModelError, match="no such model file"):
        load_classifier(path)
    network = build_network("simple", 1, 2, 16, width=4)
    save_classifier(path, network, info())
    with pytest.raises(ModelError, match="holds classifier, not a decomposition"):
        load_decomposer(path)
    save_classifier(path, network, info(options={"width": 8}))
    with pytest.raises(ModelError, match="other settings"):
        load_classifier(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="not a model file"):
        load_classifier(path)


FULL_DISK = """
import resource, sys, torch
from dxai.models.serialization import write_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_tensors(sys.argv[1], {"x": torch.zeros(100_000)})
except OSError as error:
    print(error)
"""


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pt"
    write_tensors(path, {"x": torch.ones(1)})
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, cwd=PROJECT
    )
    assert "model.pt" in done.stdout, done.stderr
    assert "cannot be written" in done.stdout or "File too large" in done.stdout
    assert torch.load(path)["x"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
