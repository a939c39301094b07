"""The user's classifier: adapted to the images, checked on some, and put into a model file."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dxai.config.schema import ClassifierSpec
from dxai.config.settings import parse
from dxai.datasets.in_memory import InMemoryImages
from dxai.models.accuracy_check import confusion_of
from dxai.models.adapter import adapt
from dxai.models.classifier_check import check_classifier
from dxai.models.classifiers import FILES, build_classifier, build_network
from dxai.models.file_kinds import arch_of
from dxai.models.renewal import brought
from dxai.models.serialization import adapter_info, freeze

PER_CLASS = 16
"""Images of each class on which a network is tried."""
LIVE = "live"
"""The `arch` of a network that is given as an object."""


@dataclass(frozen=True)
class Explained:
    """A classifier of images in [-1, 1], frozen and in eval mode, and what it is made from."""

    network: nn.Module
    spec: ClassifierSpec
    class_names: list[str]
    channels: int
    image_size: int

    @property
    def info(self) -> dict[str, Any]:
        """Return what a model file needs to rebuild the network from its code or program."""
        return self._base | {
            "arch": self.spec.arch,
            "options": dict(self.spec.options),
            "network_range": list(self.spec.expected_range),
            **adapter_info(self.spec),
        }

    @property
    def _base(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "class_names": self.class_names,
            "image_size": self.image_size,
            "value_range": [-1.0, 1.0],
        }

    @property
    def digest(self) -> str:
        """Identify the function: a hash of weights and settings."""
        found = hashlib.blake2b(digest_size=8)
        for name, value in self.network.state_dict().items():
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        found.update(repr((self.spec.expected_range, adapter_info(self.spec))).encode())
        return found.hexdigest()

    @functools.cached_property
    def stored(self) -> tuple[nn.Module, dict[str, Any]]:
        """What a model file holds of the classifier: a network, on the CPU, and its info.

        A network that was given as an object is stored as a program of `torch.export`, which loads
        without its code. Raises `ValueError` if it cannot be exported.
        """
        if self.spec.arch != LIVE:
            return self.network, self.info
        example = torch.zeros(2, self.channels, self.image_size, self.image_size)
        dynamic = ({0: torch.export.Dim("batch")},)
        buffer = io.BytesIO()
        try:
            program = torch.export.export(self.network, (example,), dynamic_shapes=dynamic)
            torch.export.save(program, buffer)
            content = torch.from_numpy(np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy())
            stored = FILES["torch.export"](content)
            given = torch.linspace(-1, 1, example.numel()).reshape(example.shape)
            with torch.no_grad():
                torch.testing.assert_close(stored(given), self.network(given), rtol=1e-3, atol=1e-3)
        except Exception as error:  # export may raise anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"the network cannot be stored by torch.export ({reason}); give it as "
                "'package.module:name' with weights"
            ) from None
        info = {"arch": "torch.export", "options": {}, "network_range": [-1.0, 1.0]}
        return freeze(stored), self._base | info


def spec_of(
    model: nn.Module | str,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ClassifierSpec:
    """Describe a classifier: a torch module, `package.module:name`, or a file that holds all of it.

    `settings` are those of an entry of `classifiers`; None leaves the default. Raises `ValueError`
    for a contradiction.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if isinstance(model, nn.Module):
        if weights is not None or options:
            raise ValueError("model is a network already; leave weights and options out")
        return _parsed(arch=LIVE, **given)
    if not isinstance(model, str | Path):
        raise ValueError(
            f"model is {type(model).__name__}; expected a torch.nn.Module, 'package.module:name', "
            "or a file of torch.export or TorchScript"
        )
    path = Path(model).expanduser()
    if path.is_file():
        if weights is not None:
            raise ValueError(f"{model} would bring its own weights; leave weights out")
        return _parsed(arch=arch_of(path), weights=str(path), **given)
    module, colon, name = str(model).partition(":")
    if "/" in module or module.endswith(".py"):
        if not colon:
            raise FileNotFoundError(f"{model}: no such file")
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise ValueError(f"{model}: name it as Python imports it, {dotted}:{name}")
    taken = None if weights is None else str(Path(weights).expanduser())
    train = False if weights is None and colon else None  # it brings its weights itself
    given |= {"weights": taken, "options": dict(options or {}), "train": train}
    return _parsed(arch=str(model), **given)


def _parsed(**settings: Any) -> ClassifierSpec:
    try:
        return parse(ClassifierSpec, settings, "")
    except ValueError as error:
        raise ValueError(_in_words_of_fit(str(error))) from None


def adapted(
    model: nn.Module | str,
    spec: ClassifierSpec,
    class_names: Sequence[str],
    image_size: int,
    channels: int | None = None,
) -> Explained:
    """Make the classifier for images (B, channels, image_size, image_size) in [-1, 1].

    Without `channels` it takes RGB images, or gray ones if it refuses those. The user's own module
    is copied and never changed. Raises `ValueError`, in one line, if it does not fit.
    """
    names = list(class_names)
    refused: ValueError | None = None
    for count in (3, 1) if channels is None else (channels,):
        try:
            if isinstance(model, nn.Module):
                own = copy.deepcopy(model).cpu().eval()
                network = adapt(own, spec, count, names, image_size)
            else:
                _require_weights(spec, count, names, image_size)
                network = build_classifier(spec, count, names, image_size)
        except ValueError as error:
            refused = refused or error
        else:
            return Explained(freeze(network), spec, names, count, image_size)
    assert refused is not None
    raise ValueError(_in_words_of_fit(str(refused)))


def _require_weights(spec: ClassifierSpec, channels: int, names: list[str], size: int) -> None:
    """Raise ValueError for a network that would be explained with random weights."""
    if spec.weights is not None:
        return
    if ":" in spec.arch:
        first, second = (
            build_network(spec.arch, channels, len(names), size, **spec.options) for _ in range(2)
        )
        if brought(first, second):
            return
    raise ValueError(f"{spec.arch} has no trained weights; name their file with weights")


def check(explained: Explained, *splits: InMemoryImages) -> Iterator[str]:
    """Try the classifier on some images of each class; yield what should be known about it.

    Raises `ValueError` for the first thing that must not stay as it is.
    """
    images, labels = first_of_each_class(*splits)
    names, spec = explained.class_names, explained.spec
    for finding in check_classifier(explained.network, images, labels, names, spec, trained=True):
        if finding.fatal:
            raise ValueError(f"the network {_in_words_of_fit(finding.text)}")
        yield _in_words_of_fit(finding.text)
    hits = confusion_of(explained.network, images, labels, len(names)).trace()
    yield f"accuracy {hits / len(labels):.2f} on {len(labels)} images"


def first_of_each_class(*splits: InMemoryImages) -> tuple[Tensor, Tensor]:
    """Return a few images (N, C, S, S) of each class, and their labels (N,)."""
    batches = [split.batch(split.spread(PER_CLASS)) for split in splits]
    return torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])


def _in_words_of_fit(text: str) -> str:
    """Name a setting as the arguments of `fit` do."""
    return text.replace("class_names", "classes").replace(f"classifier {LIVE}: ", "the network ")
