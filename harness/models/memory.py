"""How the C library handles what torch frees.

A gradient of a large cell asks for blocks of tens of megabytes and frees them, layer after layer.
By default glibc gives such blocks back to the kernel, which has to clear them when they are asked
for again: two thirds of the time of a gradient of 200 atoms went into that.

Public: keep_freed_memory.
"""

from __future__ import annotations

import ctypes
import functools
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_GIB = 2**30


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next request; whether that could be asked for.

    The process then stays as large as its largest moment, which batches bound. One arena for all
    threads, since those of threads are given back in pieces. Only glibc is asked.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    asked = {
        _M_MMAP_THRESHOLD: _GIB,
        _M_TRIM_THRESHOLD: -1,  # never
        _M_TOP_PAD: _GIB // 16,
        _M_ARENA_MAX: 1,
    }
    taken = [mallopt(option, value) for option, value in asked.items()]  # every one of them
    return all(taken)
