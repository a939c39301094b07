"""The two trainings, each as a value that can be sent to wherever it runs.

A job holds settings and the place of its data; `run` does all the work on one worker, and
everything that comes of it is in the last checkpoint.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dxai.config.schema import ClassifierParams, ClassifierSpec, DecomposeParams
from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.models.blocks import channels_last
from dxai.models.classifiers import build_classifier
from dxai.models.serialization import load_classifier
from dxai.training.checkpoints import Checkpoint
from dxai.training.classifier import initial_seed, train_classifier
from dxai.training.decomposition import train
from dxai.training.distributed import ProcessGroup
from dxai.training.events import EventSink
from dxai.training.step import Networks, build_networks


@dataclass(frozen=True)
class DecompositionJob:
    """Training of a decomposition.

    Attributes
    ----------
    data : str
        The prepared dataset, a folder or a URL.
    settings : DecomposeParams
    classifier : bytes or None
        The model file of the classifier that is explained; None is C = D.
    seed : int
    """

    data: str
    settings: DecomposeParams
    classifier: bytes | None
    seed: int

    def networks(self, data: ShardedDataset, device: torch.device | str = "cpu") -> Networks:
        """Untrained."""
        frozen = None
        if self.classifier is not None:
            frozen, _ = load_classifier(io.BytesIO(self.classifier))
        shape = (data.channels, len(data.class_names), data.image_size)
        return build_networks(self.settings, *shape, frozen, self.seed, device)

    def run(
        self, device: torch.device, checkpoint: Checkpoint, events: EventSink, group: ProcessGroup
    ) -> None:
        """Train; see `dxai.training.decomposition.train`."""
        data, validation = (ShardedDataset(self.data, s) for s in ("train", "validation"))
        networks = self.networks(data, device)
        train(networks, self.settings, data, validation, self.seed, checkpoint, events, group)


@dataclass(frozen=True)
class ClassifierJob:
    """Training of a classifier.

    Attributes
    ----------
    data : str
        The prepared dataset, a folder or a URL.
    spec : ClassifierSpec
    settings : ClassifierParams
    seed : int
    """

    data: str
    spec: ClassifierSpec
    settings: ClassifierParams
    seed: int

    def network(self, data: ShardedDataset) -> tuple[nn.Module, dict[str, Any]]:
        """The network, untrained or with the weights of the spec, and what rebuilds it."""
        options = dict(self.spec.options)
        network_range = [float(v) for v in options.pop("value_range", (-1.0, 1.0))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(initial_seed(self.seed))
            network = build_classifier(
                self.spec.arch,
                data.channels,
                len(data.class_names),
                data.image_size,
                weights=self.spec.weights,
                value_range=network_range,
                **options,
            )
        return channels_last(network), {
            "arch": self.spec.arch,
            "options": options,
            "channels": data.channels,
            "image_size": data.image_size,
            "value_range": [-1.0, 1.0],
            "network_range": network_range,
        }

    def run(
        self, device: torch.device, checkpoint: Checkpoint, events: EventSink, group: ProcessGroup
    ) -> None:
        """Train; see `dxai.training.classifier.train_classifier`."""
        data, validation = (ShardedDataset(self.data, s) for s in ("train", "validation"))
        network = self.network(data)[0].to(device)
        train_classifier(
            network, self.settings, data, validation, self.seed, checkpoint, events, group
        )


Job = DecompositionJob | ClassifierJob
