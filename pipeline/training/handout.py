"""Which rows of a cache a process computes: runs of whole blocks, so that no two processes write one block; of a cache
of few blocks runs of whole batches, whose rows the writer then marks one by one.

A process alone takes every row, a part of a pass takes a range that its number gives, and a rank takes the next run
that no other has taken, towards the end the next batch, so that a slow one does not hold the others. Batch b of a view
always has samples b·B to (b+1)·B − 1, whoever computes it: a teacher whose answers change with the rest of a batch
gives the same rows whatever the number of processes.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from decant.pipeline.training.loading import Keys, in_order

_PAGE_ROWS = 1024
"""Rows whose checksums fill a page of memory, the smallest of all tables."""
_FEWEST_UNITS = 64
"""Of a view: longer units would be handed out too unevenly."""
_FEWEST_UNITS_A_PROCESS = 4
"""Where whole blocks would be fewer for each process, batches are handed out."""
_DIVIDED_A_PROCESS = 2
"""Of the last units. One that is half as fast as the others computes its last whole one while they divide these."""


class Run(NamedTuple):
    """Rows `first` to `end` − 1 of a view."""

    view: int
    first: int
    end: int


class Units:
    """The runs that are handed out: whole blocks, and whole batches and pages of memory as far as that leaves enough of
    them. A batch that lies across the end of a unit is computed for both.

    >>> units = Units(num_views=2, num_samples=10_000, block_rows=32, batch_size=48)
    >>> len(units), units[0], units[106]
    (210, Run(view=0, first=0, end=96), Run(view=1, first=96, end=192))
    """

    def __init__(
        self, num_views: int, num_samples: int, block_rows: int, batch_size: int, processes: int = 1
    ) -> None:
        self.num_views, self.num_samples, self.batch_size = num_views, num_samples, batch_size
        self.rows = block_rows * max(1, batch_size // block_rows)
        for whole_ones in (math.lcm(block_rows, batch_size), math.lcm(block_rows, batch_size, _PAGE_ROWS)):
            if num_samples >= _FEWEST_UNITS * whole_ones:
                self.rows = whole_ones
        if processes > 1 and -(-num_samples // self.rows) * num_views < _FEWEST_UNITS_A_PROCESS * processes:
            self.rows = min(self.rows, batch_size)
        self.per_view = -(-num_samples // self.rows)

    def __len__(self) -> int:
        return self.num_views * self.per_view

    def __getitem__(self, number: int) -> Run:
        view, place = divmod(number, self.per_view)
        return Run(view, place * self.rows, min(self.num_samples, (place + 1) * self.rows))

    def batches(self, run: Run) -> list[Run]:
        """The same rows, batch by batch.

        >>> Units(1, 100, block_rows=32, batch_size=24).batches(Run(view=0, first=32, end=64))
        [Run(view=0, first=32, end=48), Run(view=0, first=48, end=64)]
        """
        size = self.batch_size
        edges = [run.first, *range((run.first // size + 1) * size, run.end, size), run.end]
        return [Run(run.view, *each) for each in itertools.pairwise(edges)]


def whole(units: Units) -> list[Run]:
    """Every row, one view after the other.

    >>> whole(Units(2, 100, 32, 10))
    [Run(view=0, first=0, end=100), Run(view=1, first=0, end=100)]
    """
    return [Run(view, 0, units.num_samples) for view in range(units.num_views)]


def part(units: Units, number: int, of: int) -> list[Run]:
    """The rows of part `number` of `of`, from 0: units that follow each other.

    >>> units = Units(2, 100, 32, 10)
    >>> [part(units, number, 3) for number in range(3)]  # doctest: +NORMALIZE_WHITESPACE
    [[Run(view=0, first=0, end=64)], [Run(view=0, first=64, end=100), Run(view=1, first=0, end=32)],
     [Run(view=1, first=32, end=100)]]
    """
    runs: list[Run] = []
    for unit in map(units.__getitem__, range(number * len(units) // of, (number + 1) * len(units) // of)):
        if runs and runs[-1].view == unit.view:
            runs[-1] = Run(unit.view, runs[-1].first, unit.end)
        else:
            runs.append(unit)
    return runs


def parts_of(units: Units, rows: NDArray[np.bool_], of: int) -> list[int]:
    """Which of so many parts have any of the rows (V, N).

    >>> parts_of(Units(1, 5, block_rows=2, batch_size=2), np.array([[False, True, False, False, True]]), of=3)
    [0, 2]
    """
    views, samples = np.nonzero(rows)
    numbers = np.unique(views * units.per_view + samples // units.rows)
    return np.unique(((numbers + 1) * of - 1) // len(units)).tolist()


def divided_at_the_end(
    units: Units | Sequence[Any], processes: int, divide: Callable[[Any], Iterable[Any]]
) -> list[Any]:
    """The same units, of which the last ones are divided: so many that no process still computes a whole one while the
    others have nothing left to do.

    >>> divided_at_the_end([[1, 2], [3, 4], [5, 6], [7, 8]], 1, lambda unit: [[part] for part in unit])
    [[1, 2], [3, 4], [5], [6], [7], [8]]
    """
    whole_ones = max(0, len(units) - _DIVIDED_A_PROCESS * processes)
    last = map(units.__getitem__, range(whole_ones, len(units)))
    return [*map(units.__getitem__, range(whole_ones)), *itertools.chain.from_iterable(map(divide, last))]


def handed_out(units: Units | Sequence[Any], count: Callable[[], int]) -> Iterator[Any]:
    """The units that no other process has taken. `count` counts those that are taken, this one too, and returns the
    number: a counter that all processes share.

    >>> taken = iter([1, 3, 7])
    >>> list(handed_out(Units(1, 100, 32, 10), lambda: next(taken)))
    [Run(view=0, first=0, end=32), Run(view=0, first=64, end=96)]
    """
    while (number := count() - 1) < len(units):
        yield units[number]


class MissingBatch(NamedTuple):
    """A batch in which rows are to be computed, or several of one view one after another."""

    keys: Keys
    wanted: NDArray[np.bool_]
    """(B,): which of its rows are to be written."""


MadeMeanwhile = Callable[[int, NDArray[np.integer]], NDArray[np.bool_]]
"""(view, samples (B,)) → which of them another process has made since: (B,)."""


class MissingOfRuns(Sampler[Keys]):
    """The batches of runs in which a row is missing, some of a run at once; each of these is noted in `taken`, in the
    same order, when it is drawn.

    >>> keys = MissingOfRuns([Run(0, 0, 7)], [np.arange(7) == 2], batch_size=2, at_once=2)
    >>> [some[:, 0].tolist() for some in keys], [batch.wanted.tolist() for batch in keys.taken]
    ([[0, 1, 2, 3], [4, 5, 6]], [[True, True, False, True], [True, True, True]])
    """

    def __init__(
        self,
        runs: Iterable[Run],
        written: Sequence[NDArray[np.bool_]],
        batch_size: int,
        made_meanwhile: MadeMeanwhile | None = None,
        at_once: int = 1,
    ) -> None:
        """written: (N,) for each view, which rows are there. made_meanwhile: called with each batch that is drawn.
        at_once: the most batches that are drawn together; all but the last of a view have `batch_size` keys.
        """
        self.taken: deque[MissingBatch] = deque()
        self._runs, self._written, self._batch_size = runs, written, batch_size
        self._made_meanwhile, self._at_once = made_meanwhile, at_once

    def __iter__(self) -> Iterator[Keys]:
        for run in self._runs:
            missing = self._missing(run)
            while some := list(itertools.islice(missing, self._at_once)):
                keys, wanted = map(np.concatenate, zip(*some, strict=True))
                self.taken.append(MissingBatch(keys, wanted))
                yield keys

    def _missing(self, run: Run) -> Iterator[MissingBatch]:
        """The batches of a run that have rows to be computed, each alone."""
        view, first, end = run
        size, missing = self._batch_size, ~self._written[view][first:end]
        if not missing.any():
            return
        for batch in range(first // size, -(-end // size)):
            keys = in_order(batch, size, len(self._written[view]), view)
            rows = keys[:, 0]
            wanted = (rows >= first) & (rows < end)
            wanted[wanted] = missing[rows[wanted] - first]
            if self._made_meanwhile is not None and wanted.any():
                wanted[wanted] = ~self._made_meanwhile(view, rows[wanted])
            if wanted.any():
                yield MissingBatch(keys, wanted)
