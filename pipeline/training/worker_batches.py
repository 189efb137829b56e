"""Batches that worker processes make: what each is asked for, and what it sends.

A message from a worker costs some 0.1 ms in both processes, whatever is in it. Where batches are small, it has several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch._utils import ExceptionWrapper
from torch.utils.data import Dataset, Sampler, get_worker_info

from decant.cache import CacheError
from decant.pipeline.errors import PipelineError
from decant.pipeline.support import trust
from decant.pipeline.training.lent_memory import LentMemory
from decant.pipeline.training.sending import Packed, pack, tensors_of

_MOST_BYTES, _MOST_BATCHES = 4 << 20, 16
"""Of a message."""
_RUNS_AHEAD = 12
"""Messages whose keys a worker knows at once."""

Keys = NDArray[np.int64]
Maker = Callable[[Iterable[Keys]], Iterator[tuple[Any, ...]]]


class Run:
    """What a worker is asked for at once."""

    __slots__ = ("ahead", "keys", "number", "then")

    def __init__(
        self, keys: list[Keys], ahead: list[Keys] | None, number: tuple[int, int], then: tuple[int, int]
    ) -> None:
        """keys: of the batches that are made now. ahead: of those that this worker will most likely be asked for next,
        so that what they need can be read in one call; None where it was told of these batches and the next ones
        before. number: of this run, and `then` that of the worker's next one.
        """
        self.keys, self.ahead, self.number, self.then = keys, ahead, number, then

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[Any, ...]]:
        """As one array: each costs some calls of Python."""
        keys, count = self.keys + (self.ahead or []), len(self.keys)
        sizes = [len(each) for each in keys]
        return _divided, (np.concatenate(keys), sizes, count, self.ahead is None, self.number, self.then)


def _divided(
    keys: Keys, sizes: list[int], count: int, told: bool, number: tuple[int, int], then: tuple[int, int]
) -> Run:
    parts = np.split(keys, np.cumsum(sizes[:-1]))
    return Run(parts[:count], None if told else parts[count:], number, then)


class RunsOfKeys(Sampler[Run]):
    """The same batches, several to be made by a worker in a row: the first ones of an epoch and the last ones fewer, as
    they are waited for.

    >>> import torch
    >>> keys = [np.full((1, 2), number) for number in range(40)]
    >>> runs = RunsOfKeys(keys, workers=2)
    >>> [len(run.keys) for run in runs] == 40 * [1]
    True
    >>> runs.learn([torch.zeros(1 << 18)])  # 1 MiB
    >>> [len(run.keys) for run in runs]
    [1, 1, 2, 2, 4, 4, 4, 4, 4, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    """

    def __init__(self, keys: Any, workers: int, most_bytes: int = _MOST_BYTES) -> None:
        """most_bytes: of a message; 0 where keys are not to be drawn long before they are needed."""
        self.keys, self._workers, self._most_bytes = keys, workers, min(most_bytes, _MOST_BYTES)
        self._bytes = self._passes = 0

    def __len__(self) -> int:
        """Batches."""
        return len(self.keys)

    def __iter__(self) -> Iterator[Run]:
        """A DataLoader gives them to its workers in turn. Where it should not, a worker makes a run without what it has
        read ahead.
        """
        self._passes += 1
        runs = self._divided_keys() if self._most_bytes else ([keys] for keys in self.keys)
        if self._most_bytes and self._bytes:
            listed = list(runs)
            for number, keys in enumerate(listed):
                yield self._run(keys, self._ahead(listed, number), number)
        else:  # the first epoch, of whose batches the first shows how large they are
            for number, keys in enumerate(runs):
                yield self._run(keys, [], number)

    def _run(self, keys: list[Keys], ahead: list[Keys] | None, number: int) -> Run:
        return Run(keys, ahead, (self._passes, number), (self._passes, number + self._workers))

    def _ahead(self, runs: list[list[Keys]], number: int) -> list[Keys] | None:
        """The keys of the next runs of the same worker, every so many runs."""
        if number // self._workers % _RUNS_AHEAD:
            return None
        following = range(number + self._workers, len(runs), self._workers)[: _RUNS_AHEAD - 1]
        return [keys for each in following for keys in runs[each]]

    def _divided_keys(self) -> Iterator[list[Keys]]:
        left, given = iter(self.keys), 0
        remaining = len(self.keys) - int(getattr(self.keys, "first", 0))
        while run := list(islice(left, self._size(given, remaining))):
            yield run
            given, remaining = given + 1, remaining - len(run)

    def learn(self, batch: Any) -> None:
        """How large a batch is; of several the largest counts."""
        self._bytes = max(self._bytes, sum(tensor.nbytes for tensor in tensors_of(batch)))

    def _size(self, given: int, remaining: int) -> int:
        if not self._bytes:
            return 1
        fair = min(2 ** min(given // self._workers, 10), remaining // (2 * self._workers))
        return max(1, min(fair, _MOST_BATCHES, self._most_bytes // self._bytes))


class Batches(Dataset[Any]):
    """A dataset whose items are whole batches, so that a worker of a DataLoader makes each in one call; or, of several
    keys, what a worker sends of these (`sending`).
    """

    def __init__(self, data: Any, maker: Callable[[Any], Maker], memory: LentMemory | None = None) -> None:
        """data: has `batch`. maker: what makes its batches in a row. memory: in which a worker sends them."""
        self.data, self.memory = data, memory
        self._maker = maker
        self._makes: Maker | None = None
        self._made: Iterator[tuple[Any, ...]] = iter(())
        self._comes: tuple[int, int] | None = None
        """Of which run `_made` begins."""

    def __reduce__(self) -> tuple[Any, ...]:
        """For a worker that is started anew: what the user's code may do is unpickled before objects of that code."""
        return _with_permissions, (trust.Permissions(), self.data, self._maker, self.memory)

    def __getitem__(self, keys: Keys | Run) -> Any:
        """The batch, or the error instead: raised in a worker, it would lose its type and gain a traceback."""
        if isinstance(keys, Run):
            return pack(self._each(keys), len(keys.keys), self.memory)
        try:
            return self.data.batch(keys)
        except (PipelineError, CacheError) as error:
            return error
        except OSError as error:
            if get_worker_info() is None:
                raise
            return error

    def _each(self, run: Run) -> Iterator[Any]:
        """The batches of a run, up to the first error, which comes in the place of its batch."""
        if self._makes is None:
            self._makes = self._maker(self.data)
        goes_on = run.ahead is None and self._comes == run.number
        if not goes_on:
            self._made = self._makes([*run.keys, *(run.ahead or ())])
        self._comes = None  # until all are made
        try:
            yield from islice(self._made, len(run.keys))
            self._comes = run.then if goes_on or run.ahead else None
        except (PipelineError, CacheError, OSError) as error:
            yield error
        except Exception:
            worker = get_worker_info()
            yield ExceptionWrapper(where=f"in DataLoader worker process {worker.id if worker else 0}")


def _with_permissions(
    _: trust.Permissions, data: Any, maker: Callable[[Any], Maker], memory: LentMemory | None
) -> Batches:
    return Batches(data, maker, memory)


def received(item: Any, runs: RunsOfKeys | None) -> Iterator[Any]:
    """The batches of what a worker has sent. Raises the error that it met."""
    for number, batch in enumerate(item if isinstance(item, Packed) else (item,)):
        if isinstance(batch, ExceptionWrapper):
            batch.reraise()
        if isinstance(batch, Exception):
            try:
                raise batch
            finally:  # its traceback would hold this frame and this frame it, and so the loader and its workers
                del batch, item
        if runs is not None and not number:
            runs.learn(batch)
        yield batch
