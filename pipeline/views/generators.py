"""The global random generators of a process: seeded before a transform is called, and put back afterwards.

Transforms draw from three of them: torch's on the CPU, NumPy's legacy one and Python's. Whoever borrows them gives them
back, so that views disturb nothing that a training loop draws.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


class _Borrowing:
    """One thread at a time may borrow the generators; a forked process begins with the lock free."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.RLock()


_BORROWING = _Borrowing()


@contextmanager
def generators_kept() -> Iterator[None]:
    """Puts the three global generators back as they were at the end, also after an error.

    NumPy's state would take 100 µs to copy, so that its generator is exchanged for another one meanwhile.

    >>> state = random.getstate()
    >>> with generators_kept():
    ...     random.seed(7)
    >>> random.getstate() == state
    True
    """
    with _BORROWING.lock:
        torch_state = torch.default_generator.get_state()
        python_state = random.getstate()
        numpy_generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
        np.random.set_bit_generator(np.random.MT19937(0))  # type: ignore[attr-defined]
        try:
            yield
        finally:
            np.random.set_bit_generator(numpy_generator)  # type: ignore[attr-defined]
            random.setstate(python_state)
            torch.default_generator.set_state(torch_state)


def seed_generators(bits: list[int]) -> None:
    """Seeds the three global generators from random bits, at least three numbers below 2⁶⁴. Inside `generators_kept`.

    >>> with generators_kept():
    ...     seed_generators([1, 2, 3])
    ...     first = random.random(), float(torch.rand(()))
    ...     seed_generators([1, 2, 3])
    ...     first == (random.random(), float(torch.rand(())))
    True
    """
    torch.default_generator.manual_seed(
        bits[0] >> 1
    )  # torch.manual_seed would seed the GPUs too, at 200 times the cost
    np.random.seed([bits[1] >> 32, bits[1] & 0xFFFFFFFF])  # noqa: NPY002
    random.seed(bits[2])
