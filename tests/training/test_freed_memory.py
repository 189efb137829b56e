"""Memory that a step frees is there in the next, and is not got from the system again."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from decant.pipeline.training.freed_memory import keep_freed_memory

PAGE = resource.getpagesize()


def faults_of_a_step() -> int:
    """Pages that are got for 60 MB in twelve tensors, as activations and gradients of a step have."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(5 << 18) for _ in range(12)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_step_takes_the_memory_of_the_one_before() -> None:
    keep_freed_memory.cache_clear()
    if not keep_freed_memory():
        pytest.skip("another C library, or the environment says how much is kept")
    faults_of_a_step()
    assert min(faults_of_a_step() for _ in range(3)) < 60e6 / PAGE / 20


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_environment_says_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory.cache_clear()
    monkeypatch.setenv(name, "glibc.malloc.trim_threshold=131072" if name == "GLIBC_TUNABLES" else "131072")
    assert not keep_freed_memory()
    keep_freed_memory.cache_clear()
