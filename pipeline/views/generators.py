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


class Kept:
    """The states of the three global generators, as they were when they were borrowed."""

    def __init__(self) -> None:
        self._torch, self._python = torch.default_generator.get_state(), random.getstate()
        self._numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        self._generator: Any = np.random.get_bit_generator()  # type: ignore[attr-defined]
        if not isinstance(self._generator, np.random.MT19937):  # somebody's own, which takes no seed of ours
            np.random.set_bit_generator(np.random.MT19937(0))  # type: ignore[attr-defined]
            self._numpy = np.random.get_state(legacy=False)  # noqa: NPY002

    def others_drew_nothing(self) -> bool:
        """Whether the generators of NumPy and Python are as they were."""
        now: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        return bool(
            now["state"]["pos"] == self._numpy["state"]["pos"]
            and now["has_gauss"] == self._numpy["has_gauss"]
            and np.array_equal(now["state"]["key"], self._numpy["state"]["key"])
            and random.getstate() == self._python
        )

    def put_back(self) -> None:
        """Gives all of them the states that they had."""
        torch.default_generator.set_state(self._torch)
        if not self.others_drew_nothing():
            np.random.set_state(self._numpy)  # noqa: NPY002
            random.setstate(self._python)
        if np.random.get_bit_generator() is not self._generator:  # type: ignore[attr-defined]
            np.random.set_bit_generator(self._generator)  # type: ignore[attr-defined]


@contextmanager
def generators_kept() -> Iterator[Kept]:
    """Puts the three global generators back as they were at the end, also after an error.

    >>> state = random.getstate()
    >>> with generators_kept() as kept:
    ...     before = kept.others_drew_nothing()
    ...     random.seed(7)
    ...     before, kept.others_drew_nothing()
    (True, False)
    >>> random.getstate() == state
    True
    """
    with _BORROWING.lock:
        kept = Kept()
        try:
            yield kept
        finally:
            kept.put_back()


def seed_generators(bits: list[int]) -> None:
    """Seeds the three global generators from random bits, at least three numbers below 2⁶⁴. Inside `generators_kept`.

    >>> with generators_kept():
    ...     seed_generators([1, 2, 3])
    ...     first = random.random(), float(torch.rand(()))
    ...     seed_generators([1, 2, 3])
    ...     first == (random.random(), float(torch.rand(())))
    True
    """
    seed_torch(bits[0] >> 1)
    np.random.seed([bits[1] >> 32, bits[1] & 0xFFFFFFFF])  # noqa: NPY002
    random.seed(bits[2])


seed_torch = torch.default_generator.manual_seed
"""Seeds torch's generator of the CPU alone; `torch.manual_seed` would seed those of GPUs too, at 200 times the cost."""
