"""The workers of a training: how they share a batch and communicate.

Losses are means over the batch, and random draws are keyed by an image's position in the global
batch, so N workers with B / N images each and averaged gradients equal one worker with B.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class ProcessGroup:
    """One worker's view of the process group, by default as its only worker.

    Attributes
    ----------
    rank, size : int
        This worker's number, from 0, and the number of workers. With more than one,
        `torch.distributed` must be initialised.
    """

    rank: int = 0
    size: int = 1

    def share(self, batch_size: int) -> range:
        """Return this worker's positions in a batch.

        Raises
        ------
        ValueError
            If the batch cannot be divided equally, which would change the mean.
        """
        if batch_size % self.size:
            valid = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise ValueError(
                f"a batch of {batch_size} images cannot be shared equally by {self.size} workers; "
                f"valid numbers of workers are {', '.join(map(str, valid))}"
            )
        part = batch_size // self.size
        return range(self.rank * part, (self.rank + 1) * part)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace the gradients by their mean over the workers, in a single message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.mean(torch.cat([g.reshape(-1) for g in gradients]))
        parts = flat.split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def mean(self, values: Tensor) -> Tensor:
        """Average over the workers, in place."""
        return self.sum(values).div_(self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the workers, in place; not differentiable."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the first worker's value (any picklable object) on all workers."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def synchronise_batch_norm(self, network: nn.Module) -> nn.Module:
        """Compute batch norm statistics over the whole batch (`nn.SyncBatchNorm` needs a GPU).

        Raises
        ------
        ValueError
            For a custom batch norm class.
        """
        if self.size > 1:
            for module in network.modules():
                if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
                    if type(module) not in _SYNCHRONISED:
                        raise ValueError(
                            f"the batch norm {type(module).__name__} cannot be shared by workers; "
                            "train with training.workers: 1"
                        )
                    module.__class__ = _SYNCHRONISED[type(module)]
        return network


class _Sum(torch.autograd.Function):
    """Sum over the workers; its gradient is the sum of theirs, since each worker uses the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


SINGLE_PROCESS = ProcessGroup()


class _SynchronisedBatchNorm(_BatchNorm):
    """A batch norm whose training statistics cover all workers' images."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = dist.get_world_size() * x.numel() // x.shape[1]
        mean = _Sum.apply(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        if self.running_mean is not None:
            self._update_running(mean.detach(), variance.detach() * count / (count - 1))
        out = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = self.momentum
        if rate is None:  # the mean over all batches
            rate = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


_SYNCHRONISED: dict[type, type] = {
    kind: type(f"Synchronised{kind.__name__}", (_SynchronisedBatchNorm, kind), {})
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}
