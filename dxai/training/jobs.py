"""A training as a value that can be sent to the workers."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch

from dxai.training.checkpoints import Checkpoint
from dxai.training.distributed import ProcessGroup
from dxai.training.events import EventSink


class Job(Protocol):
    """Settings, seed and data location of one training, as a dataclass.

    Each job is defined beside its training: `ClassifierJob` and `DecompositionJob`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def data(self) -> str:
        """A folder or URL."""
        ...

    @property
    def user_package(self) -> str | None:
        """The package outside this one that the workers need."""
        ...

    def run(
        self, device: torch.device, checkpoint: Checkpoint, events: EventSink, group: ProcessGroup
    ) -> None:
        """Do one worker's part; everything it produces is in the last checkpoint."""
        ...
