"""Rows of some samples of one view, as they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import AxisName
from decant.cache.lengths import Even, Lengths, Ragged


@dataclass(frozen=True)
class Batch:
    """Rows that can be stored, of some samples of one view: an array for each table.

    >>> batch = Batch(np.array([7, 2]), 0, {"ids": np.arange(5)}, {"ids": Ragged(np.array([0, 3, 5]))})
    >>> batch.part("ids", 1, 2).tolist(), batch.pick([1, 0]).columns["ids"].tolist()
    ([3, 4], [3, 4, 0, 1, 2])
    """

    samples: NDArray[np.int64]
    """(B,), all different."""
    view: int
    columns: Mapping[str, NDArray[Any]]
    lengths: Mapping[str, Lengths] = field(default_factory=dict)
    """By the name of a column, how many rows each sample has in it, where that is not one."""

    def rows(self, places: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """The rows of samples[places], of every table."""
        at = np.asarray(places)
        return {
            table: column[self.lengths[table].rows(at) if table in self.lengths else at]
            for table, column in self.columns.items()
        }

    def pick(self, places: Sequence[int] | NDArray[np.integer]) -> Batch:
        """A batch of samples[places] alone."""
        at = np.asarray(places)
        own = {table: Ragged(lengths.spans(at)) for table, lengths in self.lengths.items()}
        return Batch(self.samples[at], self.view, self.rows(at), own)

    def joined(self, other: Batch) -> Batch:
        """The rows of both, in the order of their samples.

        >>> one, more = (Batch(np.array(of), 0, {"ids": np.array(of)}) for of in ([5, 1], [3]))
        >>> one.joined(more).columns["ids"].tolist()
        [1, 3, 5]
        """
        samples = np.concatenate([self.samples, other.samples])
        columns = {name: np.concatenate([self.columns[name], other.columns[name]]) for name in self.columns}
        mine, places = np.arange(len(self.samples)), np.arange(len(other.samples))
        lengths: dict[str, Lengths] = {
            name: Ragged(np.r_[0, np.cumsum(np.r_[own.of(mine), other.lengths[name].of(places)])])
            for name, own in self.lengths.items()
        }
        return Batch(samples, self.view, columns, lengths).pick(np.argsort(samples))

    def part(self, table: str, first: int, end: int) -> NDArray[Any]:
        """The rows of samples[first:end]."""
        lengths = self.lengths.get(table)
        if lengths is None:
            return self.columns[table][first:end]
        return self.columns[table][lengths.start(first) : lengths.start(end)]

    def bytes_of(self, table: str) -> tuple[memoryview, NDArray[np.int64]]:
        r"""The bytes of a table, and (B + 1,) where those of each sample begin.

        >>> content, starts = Batch(np.array([7, 2]), 0, {"ids": np.array([5, 6], "u1")}).bytes_of("ids")
        >>> bytes(content), starts.tolist()
        (b'\x05\x06', [0, 1, 2])
        """
        column = np.ascontiguousarray(self.columns[table])
        places, lengths = np.arange(len(self.samples) + 1), self.lengths.get(table)
        starts = places if lengths is None else lengths.starts(places)
        content: memoryview = column.reshape(-1).view(np.uint8).data
        return content, starts * (math.prod(column.shape[1:]) * column.itemsize)


def batch_lengths(
    tables: Mapping[str, AxisName], axes: Mapping[AxisName, Lengths], samples: NDArray[np.int64]
) -> dict[str, Lengths]:
    """For `Batch`: how many rows each of these samples has in each table, by the axis of the table."""
    own = {
        axis: Ragged(lengths.spans(samples))
        for axis, lengths in axes.items()
        if axis in tables.values() and not (isinstance(lengths, Even) and lengths.length == 1)
    }
    return {table: own[axis] for table, axis in tables.items() if axis in own}
