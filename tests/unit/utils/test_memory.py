"""Freed memory is used again."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from dxai.utils import memory

SCRIPT = """
import ctypes, resource, sys
from dxai.utils.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use():  # one that glibc takes from the system, whatever was freed before
    block = libc.malloc(64 << 20)
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(memory.ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_pages_of_freed_memory_are_not_asked_for_again() -> None:
    pages = 4 * (64 << 20) // resource.getpagesize()
    faults = {
        way: int(subprocess.check_output([sys.executable, "-c", SCRIPT, way], text=True))
        for way in ("kept", "returned")
    }
    assert faults["returned"] >= pages > 100 * faults["kept"]
