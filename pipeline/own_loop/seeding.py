"""Seeds every generator that a transform may draw from, at no more cost than is needed to be sure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np

from decant.pipeline.own_loop.own_generators import own_generators, seed_own
from decant.pipeline.views.generators import generators_kept, seed_generators, seed_torch
from decant.pipeline.views.hashing import Bits

Result = TypeVar("Result")
Seed: TypeAlias = int | list[int]
"""For torch's generator alone, or random bits for all."""

_FEW = 8
"""Samples below which all generators are seeded, as that takes no longer than to see which were drawn from."""


class Seeding:
    """What is seeded before a sample of a dataset is read and transformed.

    Most transforms draw from torch's generator alone, and seeding those of NumPy and Python takes ten times as long. So
    a batch is made with torch's alone, and made again with all where it turns out that another was drawn from.

    >>> import random
    >>> seeding = Seeding()
    >>> def draw():
    ...     (seed,) = seeding.seeds(np.arange(16, dtype=np.uint64)[None])
    ...     seeding.seed(seed)
    ...     return random.random()
    >>> seeding.run(100, draw) == seeding.run(1, draw) == seeding.run(100, draw)
    True
    """

    def __init__(self, *roots: object) -> None:
        """roots: the dataset and the transforms, whose own generators are looked for."""
        self._roots = roots
        self._own: list[Any] | None = None
        self._draws_from_others = self._torch_alone = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_own": None}  # which another process finds in its own copies

    def run(self, count: int, work: Callable[[], Result]) -> Result:
        """The result of `work`, which makes `count` samples and seeds before each; the global generators are put back.

        `work` may be called twice.
        """
        with generators_kept() as kept:
            if count >= _FEW and not self._draws_from_others:
                self._torch_alone = True
                try:
                    result = work()
                finally:
                    self._torch_alone = False
                if kept.others_drew_nothing():
                    return result
                self._draws_from_others = True
            return work()

    def seeds(self, bits: Bits) -> list[Seed]:
        """What to seed with for each sample, from random bits (B, 16); inside of `run`."""
        if self._own is None:
            self._own = own_generators(*self._roots)
        if self._torch_alone and not self._own:
            return (bits[:, 0] >> np.uint64(1)).tolist()
        return bits.tolist()

    def seed(self, seed: Seed) -> None:
        """Seeds with one of `seeds`; inside of `run`."""
        if isinstance(seed, int):
            seed_torch(seed)
            return
        if self._torch_alone:
            seed_torch(seed[0] >> 1)
        else:
            seed_generators(seed)
        if self._own:
            seed_own(self._own, seed)
