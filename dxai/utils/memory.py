"""Keep memory that tensors have freed, instead of returning it to the system each time."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt` (malloc.h)."""
KEPT = 256 << 20
"""Bytes: freed memory up to this stays with the process, and tensors below it are taken from it."""


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
    for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        mallopt(parameter, KEPT)
