"""The inputs that both trainings share besides networks and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dxai.datasets.sharded_dataset import ShardedDataset
from dxai.training.batch_order import Order
from dxai.training.checkpoints import Checkpoint
from dxai.training.distributed import SINGLE_PROCESS, ProcessGroup
from dxai.training.events import EventSink
from dxai.types import Images


class NonFiniteError(ValueError):
    """A loss or weight became NaN or infinite; earlier checkpoints are kept."""


@dataclass(frozen=True)
class TrainingRun:
    """One worker's data, checkpoints, events and connection to the other workers.

    Attributes
    ----------
    data, validation : Images
        Images to train on, and images to select and monitor with. Test images are never used.
    seed : int
        Keys every random draw.
    checkpoint : Checkpoint
        Of this training alone; read and written by the first worker only.
    events : EventSink
        Receives progress and may request a stop; only the first worker's is asked.
    group : ProcessGroup
        The workers that share each batch.
    """

    data: Images
    validation: Images
    seed: int
    checkpoint: Checkpoint
    events: EventSink
    group: ProcessGroup = SINGLE_PROCESS

    @classmethod
    def open(cls, folder: Path | str, *rest: Any) -> TrainingRun:
        """Open both splits of a prepared dataset (a folder or URL); `rest` as in the class."""
        data, validation = (ShardedDataset(folder, split) for split in ("train", "validation"))
        return cls(data, validation, *rest)

    @property
    def is_first(self) -> bool:
        """Whether this worker saves and reports."""
        return self.group.rank == 0

    def load(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint on every worker, or None."""
        return self.group.broadcast(self.checkpoint.load() if self.is_first else None)

    def non_finite(self, order: Order, done: int, what: str) -> NonFiniteError:
        """Make the error for step `done` (from 1), naming the step's images."""
        ids = ", ".join(self.data.ids[i] for i in order.indices(done - 1))
        return NonFiniteError(f"step {done}: {what}; images {ids}; the last checkpoint is kept")
