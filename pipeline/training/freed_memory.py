"""Memory that PyTorch frees on a processor is kept for the next step.

The C library of GNU gives freed memory at the top of its heap back to the system, and gets it anew in the next step,
page by page: 200 to 2,000 of resnet8, a batch of 128, which take 3 to 7 % of the step.
"""

from __future__ import annotations

import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of `mallopt`, in malloc.h."""
_MOST_KEPT, _LARGEST_KEPT = 128 << 20, 32 << 20
"""Bytes at the top of the heap that are kept; and of one tensor, above which it gets pages of its own, as ever: to keep
those too takes a few per cent less time, and up to a quarter more memory.
"""
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@functools.cache
def keep_freed_memory() -> bool:
    """Has this process keep up to 128 MiB that it has freed, from now on; whether it does. It does not without the C
    library of GNU, or where the environment says how much is to be kept.
    """
    if any(name in os.environ for name in _OWN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        if "CS_GNU_LIBC_VERSION" not in os.confstr_names or not os.confstr("CS_GNU_LIBC_VERSION"):
            return False
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, ValueError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, _MOST_KEPT))
