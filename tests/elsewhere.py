"""A device that only looks like one: tensors of `lazy` whose values are on the CPU.

The CPU build of torch has no second device. Here each tensor of another device carries its values,
so programs run to their end, their results can be compared with the CPU's, and an operation on
tensors of both devices fails as it would on a GPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("lazy", 0)


class Elsewhere(Tensor):
    """A tensor of `DEVICE`."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
            requires_grad=values.requires_grad,
        )
        made.values = values
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.values})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = Elsewhere(self.values.detach().clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __getitem__(self, key: Any) -> Any:
        # Torch makes a tensor of such an index on a path that no mode sees.
        if isinstance(key, list | np.ndarray):
            key = Elsewhere(torch.as_tensor(key))
        return super().__getitem__(key)

    def tolist(self) -> Any:
        return self.values.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Making(TorchFunctionMode):
    """Sees `torch.tensor`, which makes its tensor where no dispatch mode looks."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            return Elsewhere(func(*args, **kwargs | {"device": "cpu"}))
        return func(*args, **kwargs)


@contextlib.contextmanager
def another_device() -> Iterator[torch.device]:
    """Provide `DEVICE`, on which tensors can be made and to which they can be moved."""
    with _Making(), _Mode():
        yield DEVICE


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation of one device, or one that moves tensors."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    moving = func in (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
    # As on a GPU, a number may be a tensor of the CPU.
    devices = {type(t) is Elsewhere for t in tensors if t.ndim or type(t) is Elsewhere}
    if len(devices) > 1 and not moving:
        shapes = ", ".join(f"{tuple(t.shape)} on {t.device}" for t in tensors)
        raise RuntimeError(f"{func}: tensors of two devices: {shapes}")
    there = any(type(t) is Elsewhere for t in tensors)
    if (device := kwargs.get("device")) is not None:
        there = torch.device(device).type == DEVICE.type
        kwargs = kwargs | {"device": torch.device("cpu")}
    elif func is torch.ops.aten.copy_.default:
        there = type(args[0]) is Elsewhere
    inner = tree_map(lambda v: v.values if type(v) is Elsewhere else v, (args, kwargs))
    found = func(*inner[0], **inner[1])
    if func is torch.ops.aten._to_copy.default and found is inner[0][0]:
        found = found.clone()
    if not there:
        return found
    found = tree_map(lambda v: Elsewhere(v) if isinstance(v, Tensor) else v, found)
    return return_and_correct_aliasing(func, args, kwargs, found)
