"""Batches of token samples: as many samples of about one length as a budget of tokens takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.loading import EpochKeys, EpochViews, Keys, first_view

_RATIO = 1.1
"""Between the longest and the shortest sample of a bucket: at most about a tenth of a batch is padding."""


class TokenKeys(EpochKeys):
    """The batches of epoch `epoch`: every sample once, in an order that is a pure function of (seed, epoch), each
    through the view that `views` gives it. The samples of a batch are of about one length, and their number times the
    longest is at most `tokens_per_batch`, or there is one sample. Every epoch has the same number of batches, whose
    sizes are the same, so that the learning rate is a function of the step alone.

    >>> keys = TokenKeys(np.array([9, 3, 3, 8, 3]), np.array([8, 2, 2, 7, 2]), tokens_per_batch=18, seed=0)
    >>> sorted(sorted(batch[:, 0].tolist()) for batch in keys)
    [[0, 3], [1, 2, 4]]
    >>> len(keys), sorted(map(keys.size_of, range(len(keys))))
    (2, [6, 15])
    """

    def __init__(
        self,
        lengths: NDArray[np.integer],
        positions: NDArray[np.integer],
        tokens_per_batch: int,
        seed: int,
        views: EpochViews = first_view,
        group: Group = ALONE,
    ) -> None:
        """lengths: (N,) tokens that are computed of each sample, with the padding between its parts. positions: (N,)
        how many tokens are learnt from. Of several ranks, each has its samples of every batch; the batches are those of
        one process.
        """
        self.seed, self.views, self.group = seed, views, group
        self._positions = np.asarray(positions)
        self._buckets, longest = _buckets(np.asarray(lengths))
        self._bounds = _bounds(np.bincount(self._buckets), longest, tokens_per_batch)
        self._batches: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Keys]:
        """The batches of any epoch, from batch number `first` on."""
        for indices in self._indices(epoch)[first:]:
            whole = np.stack([indices, self.views(indices, epoch)], axis=1)
            yield whole[self.group.rows(len(whole))]

    def size_of(self, batch: int) -> int:
        """Positions that are learnt from in a batch of the epoch, on all ranks together."""
        return int(self._positions[self._indices(self.epoch)[batch]].sum())

    @property
    def undivided(self) -> int:
        """Batches of fewer samples than there are ranks, which each rank computes whole."""
        sizes = np.diff(self._bounds).tolist()
        return sum(self.group.count > 1 and not self.group.divides(size) for size in sizes)

    def _indices(self, epoch: int) -> list[NDArray[np.int64]]:
        """The samples of each batch of an epoch; those of the last one that was asked for are kept."""
        kept, batches = self._batches
        if epoch != kept:
            random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            order = np.lexsort([random.permutation(len(self._buckets)), self._buckets])
            batches = [
                order[self._bounds[one] : self._bounds[one + 1]] for one in random.permutation(len(self))
            ]
            self._batches = (epoch, batches)
        return batches


def _buckets(lengths: NDArray[np.integer]) -> tuple[NDArray[np.int64], list[int]]:
    """(N,) the bucket of each sample, rising with its length, and the longest sample of each bucket."""
    ends = [int(lengths.min())]
    while ends[-1] < lengths.max():
        ends.append(max(ends[-1] + 1, int(ends[-1] * _RATIO)))
    numbers = np.unique(np.searchsorted(ends, lengths), return_inverse=True)[1]
    longest = np.zeros(numbers.max() + 1, np.int64)
    np.maximum.at(longest, numbers, lengths)
    return numbers, longest.tolist()


def _bounds(counts: NDArray[np.int64], longest: list[int], tokens_per_batch: int) -> list[int]:
    """Where batches begin and end among samples in the order of their buckets. A batch may begin in one bucket and end
    in a later one, if its samples fit as the longest there.
    """
    ends = np.cumsum(counts).tolist()
    bounds, bucket = [0], 0
    while bounds[-1] < ends[-1]:
        first = bounds[-1]
        while ends[bucket] <= first:
            bucket += 1
        end = first + 1
        for later in range(bucket, len(ends)):
            most = first + tokens_per_batch // longest[later]
            if most <= end and later > bucket:
                break
            end = max(end, min(ends[later], most))
            if end < ends[later]:
                break
        bounds.append(end)
    return bounds
