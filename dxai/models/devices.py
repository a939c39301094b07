"""The device that networks run on: its choice, and exact float32 on a GPU."""

from __future__ import annotations

import contextlib
import itertools
import re

import torch
from torch import nn

from dxai.config.schema import DEVICES


def choose_device(wanted: str | torch.device, setting: str = "device") -> torch.device:
    """Return a device by its name.

    Parameters
    ----------
    wanted : str or torch.device
        `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is `cuda` if this process has a GPU, else `cpu`.
    setting : str
        What the error message calls it.

    Raises
    ------
    ValueError
        If the name is another one, or this process has no such GPU.
    """
    wanted = str(wanted)
    if not re.fullmatch(DEVICES, wanted):
        raise ValueError(f"{setting} is {wanted!r}; valid are auto, cpu, cuda, cuda:N")
    count = torch.cuda.device_count()
    if wanted == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= count:
        found = "no such device was found"
        if count:
            found = f"this process has {count} GPU(s), numbered from 0"
        raise ValueError(f"{setting} is {wanted!r}, but {found}; valid are auto, cpu")
    return device


def device_of(network: nn.Module) -> torch.device:
    """Return the device of a network's first tensor: the CPU, if it has none."""
    first = next(itertools.chain(network.parameters(), network.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def exact_float32() -> contextlib.AbstractContextManager[None]:
    """Keep a GPU from rounding the factors of convolutions to TF32, which has 10 bits.

    The context also makes convolutions repeatable. It changes nothing on a CPU.
    """
    enabled = torch.backends.cudnn.enabled
    return torch.backends.cudnn.flags(enabled=enabled, deterministic=True, allow_tf32=False)
