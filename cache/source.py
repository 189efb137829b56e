"""What soft labels are read from: one cache, or an ensemble of several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache

ROWS = 8192  # of one chunk


class LogitSource(Protocol):
    """What `LogitCache` and `Ensemble` have in common, and a student's dataset reads."""

    @property
    def path(self) -> Path:
        """The file, or the first of several; for messages."""

    @property
    def manifest(self) -> Manifest:
        """What is stored: of which teacher, data and views, and how."""

    @property
    def members(self) -> tuple[LogitCache, ...]:
        """The caches that are read, one or several."""

    @property
    def num_samples(self) -> int:
        """N."""

    @property
    def num_views(self) -> int:
        """V."""

    @property
    def num_outputs(self) -> int:
        """C: classes, or outputs of a regression."""

    @property
    def num_classes(self) -> int:
        """C."""

    @property
    def labels(self) -> NDArray[Any]:
        """(N,) int64, −1 where there is none; or (N, T) float32 regression targets."""

    @property
    def input_crc32(self) -> NDArray[np.uint32]:
        """(V, N) uint32: CRC-32 of the bytes of each view that the teacher saw, 0 where it was not recorded."""

    def logits(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> NDArray[np.floating]:
        """(B, C) raw teacher outputs; (B, K, C) of an ensemble of K teachers that are kept apart."""


def sample_chunks(lengths: NDArray[np.int64], rows: int = ROWS) -> Iterator[NDArray[np.intp]]:
    """The samples 0 to N − 1 in order, some at a time that have at most `rows` rows together, or one that has more.

    >>> [chunk.tolist() for chunk in sample_chunks(np.array([3, 2, 9, 0, 1]), rows=5)]
    [[0, 1], [2], [3, 4]]
    """
    ends = np.cumsum(lengths)
    first, before = 0, 0
    while first < len(lengths):
        end = max(first + 1, int(np.searchsorted(ends, before + rows, side="right")))
        yield np.arange(first, end)
        first, before = end, int(ends[end - 1])


def row_chunks(count: int) -> Iterator[NDArray[np.intp]]:
    """The rows 0 to `count` − 1 in order, at most ROWS at a time, so that a large table is never in memory whole.

    >>> [(int(rows[0]), int(rows[-1])) for rows in row_chunks(10_000)]
    [(0, 8191), (8192, 9999)]
    """
    for first in range(0, count, ROWS):
        yield np.arange(first, min(count, first + ROWS))
