"""The C library's memory, between the batches of a network on a processor.

PyTorch frees what a layer gave as soon as the next one has it, and glibc hands large pieces back to the system. The
next batch gets new pages, which the system first fills with zeros: that is a quarter to a half of the processor's time
of a small network's forward pass, depending on its sizes and on what was freed before.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt(3), in glibc's malloc.h
_LARGEST, _MOST = 64 << 20, 512 << 20
"""Bytes of a piece that is kept, and of all at the end of the heap: larger ones would cost more memory than is fair."""
_LARGEST_BEFORE, _MOST_BEFORE = 32 << 20, 64 << 20
"""What glibc itself comes to at most, where large pieces are freed."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, memory that is freed stays with the process, for who asks next. Does nothing where the C library is
    not glibc, or whoever started the process has set its allocator.

    >>> with freed_memory_kept():
    ...     len(bytes(1 << 20))
    1048576
    """
    mallopt = None if _is_set() else _mallopt()
    if mallopt is None:
        yield
        return
    # glibc before 2.35 refuses more; as it is, it would keep no piece.
    if not mallopt(_MMAP_THRESHOLD, _LARGEST):
        mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE)
    mallopt(_TRIM_THRESHOLD, _MOST)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE)
        mallopt(_TRIM_THRESHOLD, _MOST_BEFORE)


def _is_set() -> bool:
    return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)


def _mallopt() -> ctypes._NamedFuncPointer | None:
    """glibc's function; None of another library."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library.mallopt if hasattr(library, "gnu_get_libc_version") else None
