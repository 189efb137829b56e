"""PyTorch's threads beside threads of our own: how to have the first sleep while they wait.

A thread of OpenMP that has nothing to do asks for work in a loop, for a millisecond and more, before it sleeps. Where a
small network computes again and again, it hardly ever sleeps, and takes a core from threads that have work. Fewer
threads would be no remedy, as their number decides how sums are rounded. But libgomp, which is in PyTorch's wheels for
Linux, lets its threads sleep nearly at once while there are more of them than cores (GOMP_SPINCOUNT in its manual). So
it is enough to start a team of threads that does nothing.
"""

from __future__ import annotations

import sys

_MOST_TEAMS = 2
"""More are needed only where PyTorch uses less than half of the cores, and those that it waits on are not missed."""
_SPLIT = 1 << 17  # elements, which PyTorch divides among its threads


def teams_that_crowd(cores: int, threads: int) -> int:
    """How many teams of so many threads, beside the one that computes, are more threads than cores. 0 where PyTorch has
    one thread, or so few that they need not be kept from waiting in a loop.

    >>> [teams_that_crowd(16, threads) for threads in (32, 16, 8, 2, 1)]
    [1, 1, 2, 0, 0]
    """
    if threads < 2:
        return 0
    teams = max(0, cores - threads) // (threads - 1) + 1
    return teams if teams <= _MOST_TEAMS else 0


def hold_team(number: int, cores: int) -> None:
    """In thread `number` of some, from 0, has a team that belongs to the calling thread and ends with it, where PyTorch
    is in use and that many are needed. cores: those that the process may use.
    """
    if "torch" not in sys.modules:
        return
    import torch

    if number < teams_that_crowd(cores, torch.get_num_threads()):
        torch.ones(_SPLIT)
