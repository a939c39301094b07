"""Random numbers keyed by (seed, purpose, step, sample).

A draw depends on its key alone: not on how a batch is split over workers, on earlier draws, or on
interruptions. The generator is Philox, which is counter-based, so a key costs microseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    # Slow and large; processes that only read images do not import it.
    from torch import Tensor


def generator(seed: int, purpose: str, step: int = 0, sample: int = 0) -> np.random.Generator:
    """Return the generator of one key.

    Parameters
    ----------
    seed : int
        The run's seed.
    purpose : str
        For example ``"latent"``; different purposes never share numbers.
    step, sample : int
        The optimiser step (or epoch), and the index in the global batch (or in the split).
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype=np.uint64)
    counter = np.array([0, 0, sample, step], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def uniform(
    seed: int, purpose: str, step: int, samples: Iterable[int], size: tuple[int, ...] = ()
) -> Tensor:
    """U[0, 1) of shape (samples, *size), float32."""
    import torch

    rows = [generator(seed, purpose, step, int(s)).random(size, dtype=np.float32) for s in samples]
    return torch.from_numpy(np.asarray(rows, dtype=np.float32))


def normal(
    seed: int, purpose: str, step: int, samples: Iterable[int], size: tuple[int, ...] = ()
) -> Tensor:
    """N(0, 1) of shape (samples, *size), float32."""
    import torch

    rows = [
        generator(seed, purpose, step, int(s)).standard_normal(size, dtype=np.float32)
        for s in samples
    ]
    return torch.from_numpy(np.asarray(rows, dtype=np.float32))


def permutation(seed: int, purpose: str, epoch: int, n: int) -> np.ndarray:
    """Return a permutation of range(n)."""
    return generator(seed, purpose, epoch).permutation(n)


def torch_seed(seed: int, purpose: str, step: int = 0, sample: int = 0) -> int:
    """Return a seed for torch's own generator (initial weights, Captum)."""
    return int(generator(seed, purpose, step, sample).integers(2**63 - 1))
