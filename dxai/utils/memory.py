"""Keep memory that tensors have freed, instead of returning it to the system each time."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt` (malloc.h)."""
KEPT = 256 << 20
"""Bytes: freed memory up to this stays with the process, and tensors below it are taken from it."""
MOST = 32 << 20
"""Bytes: the largest M_MMAP_THRESHOLD of a glibc before 2.35."""


def keep_freed() -> None:
    """Let this process reuse freed memory; without glibc nothing changes.

    By default glibc asks the system anew for every tensor of more than some MiB, whose pages the
    system then clears one by one when they are first written: a sixth of the time of a forward
    pass. Numbers do not depend on it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    # If it refuses both, what it does by itself is better than the other parameter alone.
    if mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_THRESHOLD, MOST):
        mallopt(M_TRIM_THRESHOLD, KEPT)
