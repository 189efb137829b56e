"""The epoch of a dataset, and which warnings it has given, in memory that it shares with its workers."""

from __future__ import annotations

import operator
from typing import Any, get_args

import torch
from torch.utils.data import get_worker_info

from decant.cache.alignment.checks import Topic
from decant.cache.errors import warn

_EPOCH, _CALLS, _PASSES, _SAID = 0, 1, slice(2, 6), 6
"""Places of: the epoch; how often it was set; four integers of `is_third_pass`; and which topics were warned of."""


class SharedEpoch:
    """What a dataset shares with its live workers, forked or spawned.

    >>> epoch = SharedEpoch()
    >>> epoch.number, epoch.calls
    (0, 0)
    >>> epoch.set(5)
    >>> epoch.number, epoch.calls
    (5, 1)
    """

    def __init__(self) -> None:
        self._numbers = torch.zeros(_SAID + len(get_args(Topic)), dtype=torch.int64)
        self._numbers.share_memory_()  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A copy has memory of its own, which its workers share. In a worker it is shared already, and this would part
        # it from the others where they share memory in another way ("file_system" of `torch.multiprocessing`).
        if not self._numbers.is_shared():  # type: ignore[no-untyped-call]
            self._numbers.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def number(self) -> int:
        """The epoch; 0 until it is set."""
        return int(self._numbers[_EPOCH])

    @property
    def calls(self) -> int:
        """How often the epoch was set."""
        return int(self._numbers[_CALLS])

    def set(self, epoch: int) -> None:
        """Sets the epoch, in this process and in every live worker. Raises ValueError for one below 0."""
        number = operator.index(epoch)
        if number < 0:
            raise ValueError(f"epoch: counts from 0, found {epoch}")
        self._numbers[_EPOCH] = number
        self._numbers[_CALLS] += 1

    def warn_once(self, topic: Topic, text: str) -> None:
        """Warns once of each topic, whichever process is the first to notice."""
        place = _SAID + get_args(Topic).index(topic)
        if not self._numbers[place]:
            self._numbers[place] = 1
            warn(text)

    def is_third_pass(self, count: int, length: int) -> bool:
        """Whether all of `length` samples were read twice since the epoch was set, and a pass reads them again; adds
        `count` samples.

        Once the epoch was set, only workers are asked: new ones have counted no draws, and so read the epoch's view
        again. Two loaders, one of them to measure with, are no third pass, nor are two whose batches are read in turn.

        >>> epoch = SharedEpoch()
        >>> [epoch.is_third_pass(count=10, length=10) for _ in range(3)]
        [False, False, True]
        """
        calls, worker, shared = self.calls, get_worker_info(), self._numbers.numpy()[_PASSES]
        counted, last, passes, read = shared.tolist()
        if not calls:
            shared[-1] = read + count
            return bool(read + count > 2 * length)
        if worker is None:
            return False
        seed = worker.seed - worker.id  # the same in all workers of a pass
        if counted != calls:
            last, passes, read = seed, 1, 0
        elif last != seed:
            passes += 1
        shared[:] = calls, seed, passes, read + count
        return bool(passes > 2 and read >= 2 * length)
