"""Networks and files for each row of the table in docs/classifiers.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dxai.models.classifiers import build_network
from tests.unit.models.test_weights import safetensors

CLASSES = ["apple", "cross", "zebra"]
SIZE = 16

NETS = '''
"""Networks as a user writes them, of images of any range in the size that they were made for."""
import dataclasses
import torch
import torch.nn.functional as F
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3, width=4):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, classes)
    def features(self, x):
        return F.relu(self.conv(x)).mean((2, 3))
    def forward(self, x):
        return self.fc(self.features(x))

class Sized(Net):
    def forward(self, x):
        assert x.shape[2:] == (24, 24)
        return super().forward(x)

class Seeded(Net):
    def __init__(self, classes=3):
        torch.manual_seed(1)
        super().__init__(classes)

class Many(Seeded):
    def __init__(self):
        super().__init__(1000)

class OneLogit(Seeded):
    def __init__(self):
        super().__init__(1)

class OneProbability(OneLogit):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))[:, 0]

class Softmax(Net):
    def forward(self, x):
        return F.softmax(super().forward(x), 1)

@dataclasses.dataclass
class ImageClassifierOutput:
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple | None = None

class WithLogits(Net):
    def forward(self, pixel_values, labels=None):
        features = self.features(pixel_values)
        return ImageClassifierOutput(logits=self.fc(features), hidden_states=(features,))

class Dictionary(Net):
    def forward(self, x):
        scores = super().forward(x)
        return {"scores": scores, "temperature": 2 * scores}

class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.blocks = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
    def forward(self, x):
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

class Parametrised(Seeded):
    def __init__(self):
        super().__init__()
        torch.nn.utils.parametrizations.weight_norm(self.conv)

class Auxiliary(Seeded):
    def __init__(self):
        super().__init__()
        self.auxiliary, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)
    def forward(self, x):
        logits = super().forward(x)
        return (logits, self.auxiliary(self.features(x))) if self.training else logits

def half():
    return Seeded().half()

def pretrained():
    network = Net()
    network.load_state_dict(torch.load("weights/net.pt"))
    return network
'''

Function = Callable[[Tensor], Tensor]


def net(nets: ModuleType) -> nn.Module:
    """The network whose weights are in weights/net.pt."""
    network = nets.Net().eval()
    network.load_state_dict(torch.load("weights/net.pt"))
    return network


def _state(
    name: str, change: Callable[[dict[str, Tensor]], Any]
) -> Callable[[ModuleType], Function]:
    def made(nets: ModuleType) -> Function:
        content = change(net(nets).state_dict())
        path = Path("weights", name)
        if path.suffix == ".safetensors":
            path.write_bytes(safetensors(content))
        else:
            torch.save(content, path)
        return net(nets)

    return made


def _exported(name: str, shapes: Any) -> Callable[[ModuleType], Function]:
    def made(nets: ModuleType) -> Function:
        images = torch.zeros(4, 3, SIZE, SIZE)
        program = torch.export.export(net(nets), (images,), dynamic_shapes=shapes)
        torch.export.save(program, Path("weights", name))
        return net(nets)

    return made


def _scripted(nets: ModuleType) -> Function:
    torch.jit.save(torch.jit.trace(net(nets), torch.zeros(2, 3, SIZE, SIZE)), "weights/net.ts")
    return net(nets)


def _built_in(nets: ModuleType) -> Function:
    torch.manual_seed(3)
    network = build_network("simple", 3, 3, SIZE)
    torch.save(network.state_dict(), "weights/simple.pt")
    return network


def _own(name: str) -> Callable[[ModuleType], Function]:
    return lambda nets: getattr(nets, name)().eval()


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _imagenet(nets: ModuleType) -> Function:
    mean, std = _column([0.485, 0.456, 0.406]), _column([0.229, 0.224, 0.225])
    return lambda x: net(nets)(((x + 1) / 2 - mean) / std)


def _resized(nets: ModuleType) -> Function:
    return lambda x: net(nets)(nn.Upsample((24, 24), mode="bilinear")(x))


def _two(nets: ModuleType) -> Function:
    def function(x: Tensor) -> Tensor:
        z = nets.OneLogit()(x)
        return torch.cat([-z / 2, z / 2], 1)

    return function


def _centred(nets: ModuleType) -> Function:
    return lambda x: net(nets)(x) - net(nets)(x).mean(1, keepdim=True)


def _half(nets: ModuleType) -> Function:
    return lambda x: nets.half()(x.half()).float()


PREFIXED = "weights saved by Lightning, DataParallel or torch.compile: prefixes `model.`, "
PREFIXED += "`module.`, `_orig_mod.`"
CHECKPOINT = "a training's checkpoint: `state_dict`, `model_state_dict`, `model` or `net` within a "
CHECKPOINT += "file"
BROUGHT: dict[str, Callable[[ModuleType], Function | None]] = {
    "a built-in architecture, trained here": lambda nets: None,
    "a built-in architecture with weights": _built_in,
    "a class of yours, trained here": lambda nets: None,
    "a class of yours with a state dict": net,
    CHECKPOINT: _state("checkpoint.pt", lambda s: {"model_state_dict": s, "epoch": 3}),
    PREFIXED: _state(
        "lightning.ckpt", lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}}
    ),
    "weights as safetensors": _state("net.safetensors", lambda s: s),
    "a function that brings its weights": net,
    "a program of torch.export with a dynamic batch": _exported(
        "dynamic.pt2", ({0: torch.export.Dim("batch")},)
    ),
    "a program of torch.export with a static batch": _exported("static.pt2", None),
    "TorchScript": _scripted,
    "a network of images in [0, 1]": lambda nets: lambda x: net(nets)((x + 1) / 2),
    "a network trained with ImageNet's mean and deviation": _imagenet,
    "a network of bytes less their mean": lambda nets: (
        lambda x: net(nets)((x + 1) * 127.5 - _column([123.0, 117.0, 104.0]))
    ),
    "a network of images of another size": _resized,
    "classes in the network's own order": lambda nets: lambda x: net(nets)(x)[:, [1, 2, 0]],
    "some of the classes that a network knows": lambda nets: (
        lambda x: nets.Many()(x)[:, [340, 948, 953]]
    ),
    "one logit for two classes": _two,
    "one probability for two classes": _two,
    "a softmax at the end": _centred,
    "a result with `.logits`, like Hugging Face's `ImageClassifierOutput`": net,
    "a tuple or a dict, with the field of the logits": net,
    "a vision transformer": _own("Transformer"),
    "a network in half precision": _half,
    "frozen weights": net,
    "parametrised weights, such as weight_norm": _own("Parametrised"),
    "an auxiliary head that answers only in training": _own("Auxiliary"),
    "no twin": net,
    "a twin trained elsewhere": net,
}
"""Writes the files of each row; returns the function by hand, if its weights are known."""
