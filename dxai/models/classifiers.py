"""The classifiers to explain: the paper's three, and a user's own.

Every classifier takes images (B, C, H, W) in [-1, 1] and returns logits (B, c).
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dxai.models.blocks import default_format
from dxai.models.discriminator import Discriminator


class BasicBlock(nn.Module):
    """Residual block of ResNet-18 (He et al. 2016) whose activations are separate modules."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(residual + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 whose first stage has `width` channels (64 in the original).

    Up to 64 px the stem is 3x3 with stride 1 and no pooling; otherwise the last stage would be a
    single pixel and every layer-based explanation would degenerate.
    """

    def __init__(self, channels: int, classes: int, image_size: int, width: int = 64) -> None:
        super().__init__()
        small = image_size <= 64
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False)
            if small
            else nn.Conv2d(channels, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Identity() if small else nn.MaxPool2d(3, 2, 1),
        )
        self.layer1 = self._stage(width, width, 1)
        self.layer2 = self._stage(width, 2 * width, 2)
        self.layer3 = self._stage(2 * width, 4 * width, 2)
        self.layer4 = self._stage(4 * width, 8 * width, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8 * width, classes)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(self.flatten(self.pool(x)))


class Simple(nn.Module):
    """Simple classifier of Table 7: two convolutions and two linear layers.

    Pooling is 3x3 at 128 px and above, as in the table, and 2x2 below.
    """

    def __init__(self, channels: int, classes: int, image_size: int, width: int = 16) -> None:
        super().__init__()
        pool = 3 if image_size >= 128 else 2
        side = image_size // pool // pool
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.MaxPool2d(pool),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.MaxPool2d(pool),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(side * side * 2 * width, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Exported(nn.Module):
    """Network from a `torch.export` file, held as bytes (uint8) that a model file can store."""

    program: Tensor

    def __init__(self, program: Tensor) -> None:
        super().__init__()
        self.register_buffer("program", program)
        graph = torch.export.load(io.BytesIO(program.numpy().tobytes())).module()
        # Hidden from `modules()`: an exported graph refuses `eval()` and `train()`.
        self.__dict__["graph"] = graph

    def forward(self, x: Tensor) -> Tensor:
        return self.__dict__["graph"](x)


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": ResNet18,
    "simple": Simple,
    "discriminator": Discriminator,
}
"""Built-in architectures by name; each takes channels, classes, image_size and its options."""


class Rescaled(nn.Module):
    """User's network whose value range is not [-1, 1]."""

    def __init__(self, network: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.network = network
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.low + (x + 1) * ((self.high - self.low) / 2))


def build_classifier(
    arch: str,
    channels: int,
    classes: int,
    image_size: int,
    weights: str | Path | None = None,
    value_range: Sequence[float] = (-1.0, 1.0),
    **options: Any,
) -> nn.Module:
    """Build a classifier, untrained unless `weights` names a file.

    Parameters
    ----------
    arch : str
        A key of `CLASSIFIERS`; `package.module:name` of a user's `torch.nn.Module` class or of a
        function that returns one, called with only `options`; or `torch.export`, when `weights`
        is a file written by `torch.export.save`.
    channels, classes, image_size : int
        Shape of the images and number of classes; a network that does not fit is refused.
    weights : path, optional
        A state dict as written by `torch.save`; loaded without running code from the file.
    value_range : pair of float
        Range that a user's network expects.
    options
        Keyword arguments of the constructor.

    Returns
    -------
    nn.Module
        In eval mode; maps (B, channels, image_size, image_size) to (B, classes).

    Raises
    ------
    ValueError
        If the name is unknown, the weights do not fit, or the output has another shape.
    """
    if arch == "torch.export":
        if weights is None:
            raise ValueError("classifier torch.export: weights must name a torch.export file")
        content = np.frombuffer(_existing(weights).read_bytes(), dtype=np.uint8)
        try:
            network: nn.Module = Exported(torch.from_numpy(content.copy()))
        except Exception as error:  # torch raises many types for foreign files
            raise ValueError(f"{weights}: not a torch.export file: {error}") from None
    else:
        try:
            if arch in CLASSIFIERS:
                network = CLASSIFIERS[arch](channels, classes, image_size, **options)
            else:
                network = _imported(arch)(**options)
        except TypeError as error:
            raise ValueError(f"classifier {arch}: options {options} do not fit: {error}") from None
        if not isinstance(network, nn.Module):
            raise ValueError(f"classifier {arch}: {type(network).__name__} is no torch.nn.Module")
        network.eval()
        if weights is not None:
            load_weights(network, weights, f"classifier {arch}")
    network = rescaled(network, value_range)
    if arch not in CLASSIFIERS:
        default_format(network)
    check_classifier(network, arch, channels, classes, image_size)
    return network


def rescaled(network: nn.Module, value_range: Sequence[float]) -> nn.Module:
    """Wrap a network that expects `value_range` so that it takes images in [-1, 1]."""
    low, high = value_range
    return network if (low, high) == (-1.0, 1.0) else Rescaled(network, low, high)


def load_weights(network: nn.Module, path: str | Path, what: str) -> None:
    """Load a state dict file strictly and safely, or raise a ValueError that names the file."""
    path = _existing(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for foreign files
        raise ValueError(f"{path}: not a weights file that loads safely: {error}") from None
    try:
        network.load_state_dict(state.get("state_dict", state))
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"{path}: does not fit {what}: {error}") from None


def check_classifier(
    network: nn.Module, name: str, channels: int, classes: int, image_size: int
) -> None:
    """Run one image through `network`; raise ValueError unless its output is (1, classes)."""
    shape = (1, channels, image_size, image_size)
    try:
        with torch.no_grad():
            logits = network(torch.zeros(shape))
    except Exception as error:  # a user's code may raise anything
        raise ValueError(f"classifier {name}: refuses an image of shape {shape}: {error}") from None
    if not isinstance(logits, Tensor) or logits.shape != (1, classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"classifier {name}: returns {found} for one image; the dataset has {classes} "
            f"classes, so it must return logits of shape (1, {classes})"
        )


def _imported(path: str) -> Callable[..., nn.Module]:
    module_name, _, name = path.partition(":")
    if not name:
        valid = ", ".join([*sorted(CLASSIFIERS), "joint", "torch.export"])
        raise ValueError(
            f"classifier: unknown arch {path!r}; valid are {valid}, or package.module:name"
        )
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"classifier {path}: {error}") from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    return path
