"""Random draws from global generators, which code of others makes, keyed like all others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

from dxai.utils import keyed_random


@contextlib.contextmanager
def keyed_globals(
    seed: int, purpose: str, step: int, sample: int, device: torch.device
) -> Iterator[None]:
    """Seed torch's and NumPy's global generators from a key, and restore them afterwards."""
    value = keyed_random.torch_seed(seed, purpose, step, sample)
    before = np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(value)
            np.random.seed(value % 2**32)
            yield
    finally:
        np.random.set_state(before)
