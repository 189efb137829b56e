"""An allocator that gives all memory back, until somebody says otherwise."""

from __future__ import annotations

import pytest

from decant.pipeline.support import allocator


def given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has pieces of 1 MiB and more go back to the system when they are freed, as those may in a process that has just
    begun. Skips the test where the C library is another than glibc.
    """
    mallopt = allocator._mallopt()
    if mallopt is None:
        pytest.skip("another C library")
    monkeypatch.setattr(allocator, "_is_set", lambda: False)
    mallopt(allocator._MMAP_THRESHOLD, 1 << 20)
