"""The two trainings as values that can be sent to the workers.

A job holds the settings, the seed and the location of the prepared data (a folder or URL); `run`
does the work of one worker, and everything it produces is in the last checkpoint.
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
from dxai.training.run import TrainingRun
from dxai.training.step import Networks, build_networks


@dataclass(frozen=True)
class DecompositionJob:
    """Training of a decomposition.

    `classifier` is the model file of the classifier to be explained; None means C = D.
    """

    data: str
    settings: DecomposeParams
    classifier: bytes | None
    seed: int

    def networks(self, data: ShardedDataset, device: torch.device | str = "cpu") -> Networks:
        """Build the untrained networks."""
        frozen = None
        if self.classifier is not None:
            frozen, _ = load_classifier(io.BytesIO(self.classifier))
        shape = (data.channels, len(data.class_names), data.image_size)
        return build_networks(self.settings, *shape, frozen, self.seed, device)

    def run(
        self, device: torch.device, checkpoint: Checkpoint, events: EventSink, group: ProcessGroup
    ) -> None:
        """Train; see `dxai.training.decomposition.train`."""
        run = TrainingRun.open(self.data, self.seed, checkpoint, events, group)
        train(self.networks(run.data, device), self.settings, run)


@dataclass(frozen=True)
class ClassifierJob:
    """Training of a classifier."""

    data: str
    spec: ClassifierSpec
    settings: ClassifierParams
    seed: int

    def network(self, data: ShardedDataset) -> tuple[nn.Module, dict[str, Any]]:
        """Build the network, with the spec's weights if any; also return what rebuilds it."""
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
        run = TrainingRun.open(self.data, self.seed, checkpoint, events, group)
        train_classifier(self.network(run.data)[0].to(device), self.settings, run)


Job = DecompositionJob | ClassifierJob
