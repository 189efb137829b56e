"""How the rows of a table belong to samples that have several each: one sample after another, in the samples' order."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray


class Lengths(ABC):
    """How many rows each sample has, and which of all rows is its first.

    >>> ragged = Ragged(np.array([0, 2, 2, 5]))
    >>> ragged.num_samples, ragged.total, ragged.of(np.array([0, 1, 2])).tolist()
    (3, 5, [2, 0, 3])
    """

    num_samples: int
    """N."""
    total: int
    """Rows of all samples together."""

    @abstractmethod
    def start(self, sample: int) -> int:
        """The first row of a sample in 0..N; of N, the number of all rows."""

    @abstractmethod
    def starts(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """The same of samples (B,), in 0..N."""

    @abstractmethod
    def of(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """(B,): how many rows each of these samples has."""

    @abstractmethod
    def samples_before(self, row: int) -> int:
        """How many samples begin before a row, in 0 to all rows."""

    @abstractmethod
    def samples_before_each(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """The same of rows (B,)."""

    def spans(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """(B + 1,): where the rows of these samples begin when they lie one after another; the last is their number.

        >>> Ragged(np.array([0, 2, 2, 5])).spans(np.array([2, 0])).tolist()
        [0, 3, 5]
        """
        found = np.zeros(len(samples) + 1, np.int64)
        np.cumsum(self.of(samples), out=found[1:])
        return found

    def rows(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """(Q,): the rows of these samples, one sample after another.

        >>> Ragged(np.array([0, 2, 2, 5])).rows(np.array([2, 0])).tolist()
        [2, 3, 4, 0, 1]
        """
        counts = self.of(samples)
        return np.repeat(self.starts(samples), counts) + _count_up(counts)

    def within(self, samples: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(Q,) and (Q,): of each of these rows its sample, and its place within that.

        >>> [part.tolist() for part in Ragged(np.array([0, 2, 2, 5])).within(np.array([2, 0]))]
        [[2, 2, 2, 0, 0], [0, 1, 2, 0, 1]]
        """
        counts = self.of(samples)
        return np.repeat(samples, counts).astype(np.int64), _count_up(counts)


class Even(Lengths):
    """Every sample has `length` rows; 1 where rows are samples.

    >>> Even(3, 4).rows(np.array([1])).tolist()
    [4, 5, 6, 7]
    """

    def __init__(self, num_samples: int, length: int = 1) -> None:
        self.num_samples, self.length, self.total = num_samples, length, num_samples * length

    def start(self, sample: int) -> int:
        """See `Lengths`."""
        return sample * self.length

    def starts(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """See `Lengths`."""
        return samples.astype(np.int64) * self.length

    def of(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """See `Lengths`."""
        return np.full(len(samples), self.length, np.int64)

    def samples_before(self, row: int) -> int:
        """See `Lengths`."""
        return min(self.num_samples, -(-row // self.length))

    def samples_before_each(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """See `Lengths`."""
        return np.minimum(self.num_samples, -(-rows.astype(np.int64) // self.length))


class Ragged(Lengths):
    """Sample i has the rows offsets[i] to offsets[i + 1] − 1. offsets: (N + 1,) int64 from 0 on, which never fall."""

    def __init__(self, offsets: NDArray[np.int64]) -> None:
        self.offsets = offsets
        self.num_samples, self.total = len(offsets) - 1, int(offsets[-1])

    def start(self, sample: int) -> int:
        """See `Lengths`."""
        return int(self.offsets[sample])

    def starts(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """See `Lengths`."""
        found: NDArray[np.int64] = self.offsets[samples]
        return found

    def of(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """See `Lengths`."""
        found: NDArray[np.int64] = self.offsets[samples + 1] - self.offsets[samples]
        return found

    def samples_before(self, row: int) -> int:
        """See `Lengths`."""
        return int(np.searchsorted(self.offsets[:-1], row))

    def samples_before_each(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """See `Lengths`."""
        return np.searchsorted(self.offsets[:-1], rows)


def _count_up(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 to count − 1 for each of the counts, one after another."""
    ends = np.cumsum(counts)
    found: NDArray[np.int64] = np.arange(ends[-1] if len(ends) else 0, dtype=np.int64)
    found -= np.repeat(ends - counts, counts)
    return found
