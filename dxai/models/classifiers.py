"""The classifiers to explain: the paper's three, and a user's own.

Every classifier takes images (B, C, H, W) in [-1, 1] and returns logits (B, c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec
from dxai.models.adapter import adapt
from dxai.models.blocks import default_format
from dxai.models.discriminator import Discriminator
from dxai.models.programs import Exported, Program, ProgramError, Scripted
from dxai.models.user_code import import_network
from dxai.models.weights import existing, first_sentence, load_weights
from dxai.utils.errors import one_line


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


CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": ResNet18,
    "simple": Simple,
    "discriminator": Discriminator,
}
"""Built-in architectures by name; each takes channels, classes, image_size and its options."""


FILES: dict[str, type[Program]] = {"torch.export": Exported, "torchscript": Scripted}
"""Values of `arch` that take the whole network from a file."""


def build_classifier(
    spec: ClassifierSpec,
    channels: int,
    class_names: Sequence[str],
    image_size: int,
    program: Tensor | None = None,
) -> nn.Module:
    """Build a classifier, untrained unless it brings its weights.

    Parameters
    ----------
    spec : ClassifierSpec
        What it is made from, and how it wants its images and returns its logits. A module of the
        user is found in the working folder, too.
    channels, image_size : int
        Shape of the images.
    class_names : sequence of str
        Classes of the dataset.
    program : Tensor, optional
        Content of the file of a `torch.export` or TorchScript network, uint8, in place of
        `spec.weights`.

    Returns
    -------
    nn.Module
        In eval mode; maps (B, channels, image_size, image_size) in [-1, 1] to logits (B, c) in the
        dataset's order.

    Raises
    ------
    ValueError
        In one line, if the name is unknown, the weights do not fit, or the network does not take
        these images or return the logits of these classes; the message names the setting.
    """
    what = f"classifier {spec.arch}"
    if spec.arch in FILES:
        network = _program(spec, program)
    else:
        network = build_network(spec.arch, channels, len(class_names), image_size, **spec.options)
        if spec.weights is not None:
            load_weights(network, spec.weights, what)
    try:
        network = adapt(network, spec, channels, class_names, image_size)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return network if spec.arch in CLASSIFIERS else default_format(network)


def build_network(
    arch: str, channels: int, classes: int, image_size: int, /, **options: Any
) -> nn.Module:
    """Build an untrained network, in eval mode, as its author wrote it.

    `arch` is a key of `CLASSIFIERS`, or `package.module:name` of a user's class or function, which
    is called with only `options`. Raises `ValueError` if there is none, or it fails.
    """
    shape = (channels, classes, image_size) if arch in CLASSIFIERS else ()
    make = CLASSIFIERS.get(arch) or import_network(arch, [*CLASSIFIERS, "joint", *FILES])
    try:
        network = make(*shape, **options)
    except TypeError as error:
        raise ValueError(f"classifier {arch}: options {options} do not fit: {error}") from None
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"classifier {arch}: {reason}") from None
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"classifier {arch}: returns {type(network).__name__}, not a torch.nn.Module"
        )
    return network.eval()


def _program(spec: ClassifierSpec, program: Tensor | None) -> nn.Module:
    what = f"a {'TorchScript' if spec.arch == 'torchscript' else spec.arch} file"
    if program is None:
        content = np.frombuffer(existing(str(spec.weights)).read_bytes(), dtype=np.uint8)
        program = torch.from_numpy(content.copy())
    try:
        return FILES[spec.arch](program)
    except ProgramError as error:
        raise ValueError(f"{spec.weights}: not usable as {what}: {error}") from None
    except Exception as error:  # torch raises many types for foreign files
        raise ValueError(f"{spec.weights}: not {what}: {first_sentence(error)}") from None
