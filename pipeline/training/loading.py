"""Batches for training and evaluation: a sampler yields (index, view) keys, a dataset turns a whole batch of keys into
tensors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler

from decant.cache import SoftLabelDataset
from decant.pipeline.ranks.cores import available_cores
from decant.pipeline.training.batch_runs import AcrossEpochs, InRuns
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.lent_memory import LentMemory, room_for_workers
from decant.pipeline.training.on_device import BYTES_AT_ONCE, DeviceData, DeviceViews
from decant.pipeline.training.worker_batches import Batches, RunsOfKeys, received
from decant.pipeline.training.worker_processes import alive, sent, start_method

_AHEAD = 4  # batches whose keys a dataset gets before they are read, to prefetch them

Keys = NDArray[np.int64]
"""(B, 2): sample index and view of each member of a batch."""


class BatchedData(Protocol):
    """A dataset that makes whole batches."""

    def __len__(self) -> int: ...

    def batch(self, keys: Keys, /) -> tuple[Any, ...]: ...


@runtime_checkable
class MakesSeveral(Protocol):
    """A dataset that makes several batches in one call, each of the same bytes as alone."""

    def batches(self, keys: Sequence[Keys], /) -> Sequence[tuple[Any, ...]]: ...


EpochViews = Callable[[NDArray[np.integer], int], NDArray[np.integer]]
"""(sample indices (B,), epoch) → the view of each that the epoch sees (B,)."""


def first_view(indices: NDArray[np.integer], epoch: int) -> NDArray[np.integer]:
    """View 0 of every sample, whatever the epoch."""
    return np.zeros(len(indices), np.int64)


class EpochKeys(Sampler[Keys]):
    """The batches of epoch `epoch`, from batch number `first` on: their order is a function of a seed and the epoch
    alone, and their number is the same in every epoch.
    """

    epoch = 0
    first = 0
    epochs: int | None = None
    """How many epochs there are; where it is said, small batches may be made together with those of the next epochs."""

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Keys]:
        return self.of_epoch(self.epoch, self.first)

    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Keys]:
        """The batches of any epoch, from batch number `first` on."""
        raise NotImplementedError

    def onwards(self) -> Iterator[Keys]:
        """Those of this epoch and then of all that follow."""
        assert self.epochs is not None
        firsts = {self.epoch: self.first}
        for epoch in range(self.epoch, self.epochs):
            yield from self.of_epoch(epoch, firsts.get(epoch, 0))

    def size_of(self, batch: int) -> int:
        """What a batch of the epoch counts in a mean over several, on all ranks together."""
        raise NotImplementedError


class ShuffledKeys(EpochKeys):
    """The batches of epoch `epoch`: every sample once in an order that is a pure function of (seed, epoch),
    each through the view that `views` gives it. A last batch of one sample, which batch normalisation could
    not take, is left out.

    With `shares` (N,), which sum to 1, as many samples are drawn with replacement, each in that share of the draws.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        views: EpochViews = first_view,
        shares: NDArray[np.float64] | None = None,
        group: Group = ALONE,
    ) -> None:
        """Of several ranks, each has its rows of every batch; the batches are those of one process."""
        self.length, self.batch_size, self.seed, self.views = length, batch_size, seed, views
        self.shares, self.group = shares, group

    def __len__(self) -> int:
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest > 1 or (rest == 1 and full == 0))

    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Keys]:
        """The batches of any epoch, from batch number `first` on."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        if self.shares is None:
            order = random.permutation(self.length)
        else:
            order = random.choice(self.length, self.length, p=self.shares)
        keys = np.stack([order, self.views(order, epoch)], axis=1)
        for batch in range(first, len(self)):
            whole = keys[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield whole[self.group.rows(len(whole))]

    def size_of(self, batch: int) -> int:
        """Samples in a batch of an epoch, on all ranks together."""
        return min(self.batch_size, self.length - batch * self.batch_size)


class OrderedKeys(Sampler[Keys]):
    """Every sample once through one view, in order: batch b is samples b·B to (b+1)·B − 1; of several ranks, each has
    its rows of all.
    """

    def __init__(self, length: int, batch_size: int, view: int = 0, group: Group = ALONE) -> None:
        rows = group.rows(length)
        self.first, self.length = rows.start, rows.stop - rows.start
        self.batch_size, self.view = batch_size, view

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[Keys]:
        for batch in range(len(self)):
            yield in_order(batch, self.batch_size, self.length, self.view, self.first)


class MissingKeys(Sampler[Keys]):
    """The batches of `OrderedKeys` of every view, one view after the other, in which a row is missing."""

    def __init__(self, written: NDArray[np.bool_], batch_size: int) -> None:
        """`written` (V, N) says which rows are there."""
        self.batch_size, self.length = batch_size, written.shape[1]
        complete = np.logical_and.reduceat(written, np.arange(0, self.length, batch_size), axis=1)
        self._wanted = np.argwhere(~complete).tolist()

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[Keys]:
        for view, batch in self._wanted:
            yield in_order(batch, self.batch_size, self.length, view)


def in_order(batch: int, batch_size: int, length: int, view: int, first: int = 0) -> Keys:
    """The keys of batch b of a view: samples b·B to (b+1)·B − 1, counted from the `first` of `length`.

    >>> in_order(1, batch_size=2, length=3, view=5).tolist()
    [[2, 5]]
    """
    indices = first + np.arange(batch * batch_size, min(length, (batch + 1) * batch_size))
    return np.stack([indices, np.full(len(indices), view)], axis=1)


class ReadsAhead(Protocol):
    """A dataset of which a part may still be fetched from elsewhere."""

    @property
    def is_lazy(self) -> bool: ...

    def prefetch(self, keys: Keys, /) -> None: ...


class AnnouncedKeys(Sampler[Keys]):
    """The same batches; those that come next are told to a dataset, which may have them fetched meanwhile.

    >>> class Told:
    ...     is_lazy = True
    ...     def prefetch(self, keys):
    ...         print("next", keys.tolist())
    >>> [keys.tolist() for keys in AnnouncedKeys(OrderedKeys(2, 1), Told(), ahead=1)]
    next [[0, 0]]
    next [[1, 0]]
    [[[0, 0]], [[1, 0]]]
    """

    def __init__(self, keys: Sampler[Keys], data: ReadsAhead, ahead: int = _AHEAD) -> None:
        self.keys, self.data, self.ahead = keys, data, ahead

    def __len__(self) -> int:
        return len(self.keys)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Keys]:
        waiting: deque[Keys] = deque()
        for keys in self.keys:
            if self.data.is_lazy:
                self.data.prefetch(keys)
            waiting.append(keys)
            if len(waiting) > self.ahead:
                yield waiting.popleft()
        yield from waiting


class _Loader(DataLoader[tuple[Any, ...]]):
    """Raises the errors that workers return, in this process. Without workers and pinned memory it makes the batches
    itself: what PyTorch's own iterator does around each takes longer than to make a small one.
    """

    makes: Callable[[Iterable[Keys]], Iterator[tuple[Any, ...]]]
    """Makes batches in this process."""
    started_by: str | None
    """How workers are started, where the program says nothing of it."""

    runs: RunsOfKeys | None = None
    """What workers are asked for."""

    def __iter__(self) -> Any:
        with alive(self.started_by):
            if not self.num_workers and not self.pin_memory:
                yield from self.makes(self.sampler)
                return
            for item in self._items():
                yield from received(item, self.runs)

    def _items(self) -> Iterable[Any]:
        if not self.num_workers:
            return super().__iter__()
        with sent(self.started_by):
            return super().__iter__()


def _maker(data: BatchedData) -> Callable[[Iterable[Keys]], Iterator[tuple[Any, ...]]]:
    """What makes batches in this process; small ones several in one call, where the data offer that."""

    def one_by_one(keys: Iterable[Keys]) -> Iterator[tuple[Any, ...]]:
        return map(data.batch, keys)

    if isinstance(data, SoftLabelDataset):
        in_runs = AcrossEpochs(InRuns[tuple[Any, ...]](data.batch, data.batches, data.each_batch))
        return lambda keys: one_by_one(keys) if data.is_lazy else in_runs(keys)
    if not isinstance(data, MakesSeveral):
        return one_by_one
    at_once = BYTES_AT_ONCE if isinstance(data, DeviceViews | DeviceData) else None
    return AcrossEpochs(InRuns(data.batch, data.batches, most_bytes=at_once))


def loader(
    data: BatchedData, keys: Sampler[Keys], workers: int = 0, pin_memory: bool = False
) -> DataLoader[tuple[Any, ...]]:
    """A DataLoader over the batches of `keys`; workers stay alive from epoch to epoch, and need not be told
    of a new one. Nothing is drawn from the generators of the process.
    """
    if isinstance(data, SoftLabelDataset) and data.is_lazy:
        keys = AnnouncedKeys(keys, data)
    started_by = start_method() if workers else None
    memory, runs = None, None
    if workers and not pin_memory:  # what lies in lent memory is not pinned
        room = room_for_workers(workers)
        memory = LentMemory(room)
        runs = RunsOfKeys(keys, workers, room // 4 if isinstance(keys, EpochKeys | OrderedKeys) else 0)
    batches = _Loader(
        Batches(data, _maker, memory),
        batch_size=None,
        sampler=keys if runs is None else runs,
        num_workers=workers,
        multiprocessing_context=started_by,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )
    batches.makes, batches.runs, batches.started_by = _maker(data), runs, started_by
    return batches


def default_workers(lazy: bool) -> int:
    """Worker processes: none for an array in memory, which is quicker to read than to send; for files one for each
    core that this process may use, at most 16. The processes that a launcher started on this machine share its cores.
    """
    if not lazy:
        return 0
    return min(available_cores(), 16)
