"""The ranks of a user's own script, which has its own process group, or none: they share counters, and need not come
together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import connect, timeout
from decant.pipeline.ranks.launch import launched

if TYPE_CHECKING:
    from torch.distributed import Store

_calls: dict[str, itertools.count[int]] = {}
"""How often this process has asked for a counter, by its name."""


class ScriptRanks:
    """The ranks of a script that may call a function of this package, each when it likes, or not at all."""

    def __init__(self, store: Store, size: int, start: str) -> None:
        """store: a `torch.distributed.Store`. start: tells this start of the script from earlier ones that had the same
        store.
        """
        self.size, self._store, self._start = size, store, start

    def counter(self, name: str) -> Callable[[], int]:
        """A function that counts from 1, over all ranks that have asked for a counter of that name as often as this
        one.
        """
        call = next(_calls.setdefault(name, itertools.count()))
        return lambda: int(self._store.add(f"decant/{self._start}/{name}/{call}", 1))


def ranks_of_script() -> ScriptRanks | None:
    """The ranks of this script; None where it is one process, or nothing joins its ranks.

    >>> print(ranks_of_script())
    None
    """
    from torch import distributed

    launch = launched()
    start = "" if launch is None else launch.attempt
    if distributed.is_available() and distributed.is_initialized():
        size = distributed.get_world_size()
        store = distributed.distributed_c10d._get_default_store()
        return None if size == 1 else ScriptRanks(store, size, start)
    if launch is None or not launch.has_store:
        return None
    try:
        return ScriptRanks(connect(launch, timeout()), launch.size, start)
    except RankError:
        return None
