"""How much memory a call takes, under a limit that keeps a hungry one from taking the machine's."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

MIB = 1 << 20


def peak_mib(call: Callable[[], object], most: int = 3000) -> int:
    """MiB that this process holds at most while `call` runs, beyond what it holds before. With more than `most` of
    them `call` gets a MemoryError.
    """
    with limited(most):
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
        call()
    return (resident("VmHWM") - before) // 1024


@contextlib.contextmanager
def limited(most: int) -> Iterator[None]:
    """Lets this process take `most` MiB of addresses beyond those that it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, ((resident("VmSize") << 10) + most * MIB, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def resident(name: str) -> int:
    """KiB, as the system counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
