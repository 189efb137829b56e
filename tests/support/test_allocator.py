"""The calls to the C library's allocator, for new and old versions of glibc."""

from __future__ import annotations

import os

import pytest

from decant.pipeline.support import allocator
from decant.pipeline.support.allocator import freed_memory_kept

_MIB = 1 << 20


@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_is_set_already_is_left_alone(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = list[int]()
    monkeypatch.setattr(allocator, "_mallopt", lambda: lambda which, value: called.append(which) or 1)
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    with freed_memory_kept():
        assert called
    called.clear()
    monkeypatch.setenv(variable, "1")
    with freed_memory_kept():
        pass
    assert called == []


@pytest.mark.parametrize(("most", "expected"), [(32 * _MIB, 32 * _MIB), (1 << 40, 64 * _MIB)])
def test_an_older_glibc_keeps_what_it_can(most: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One before 2.35 refuses a threshold above 32 MiB. What it has until then is 128 KiB, and any other setting ends
    that it adapts this: each piece of a layer would go back to the system.
    """
    thresholds = {allocator._MMAP_THRESHOLD: 128 << 10}

    def mallopt(which: int, value: int) -> int:
        if which == allocator._MMAP_THRESHOLD and value > most:
            return 0
        thresholds[which] = value
        return 1

    monkeypatch.setattr(allocator, "_is_set", lambda: False)
    monkeypatch.setattr(allocator, "_mallopt", lambda: mallopt)
    with freed_memory_kept():
        assert thresholds == {allocator._MMAP_THRESHOLD: expected, allocator._TRIM_THRESHOLD: 512 * _MIB}
    assert thresholds == {allocator._MMAP_THRESHOLD: 32 * _MIB, allocator._TRIM_THRESHOLD: 64 * _MIB}
