"""Which view a key without one reads: that of the epoch, and of an index that is drawn again in an epoch the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decant.cache.alignment.keys import Keys, split_keys


class DrawnViews:
    """Counts how often a process has read each index in the present epoch, batch by batch.

    A sampler without replacement draws each index once, and so reads view `epoch mod V` alone.

    >>> drawn = DrawnViews(10)
    >>> drawn.split([3, 4, 3, (7, 1)], num_views=4, epoch=2, calls=1)[1].tolist()
    [2, 2, 3, 1]
    >>> drawn.split([3], num_views=4, epoch=2, calls=1)[1].tolist()
    [0]
    >>> drawn.split([3], num_views=4, epoch=3, calls=2)[1].tolist()
    [3]
    """

    def __init__(self, length: int) -> None:
        self._length, self._calls = length, 0
        self._counts: NDArray[np.uint16] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_counts": None, "_calls": 0}

    def split(
        self, keys: Keys, num_views: int, epoch: int, calls: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(indices (B,), views (B,)) of keys. `calls` is how often the epoch was set; before it was, nothing is
        counted.
        """
        view = epoch % num_views
        if num_views == 1 or not calls or (isinstance(keys, np.ndarray) and keys.ndim == 2):
            return split_keys(keys, self._length, view)
        indices, views = split_keys(keys, self._length, view)
        plain = np.array([not isinstance(key, tuple) for key in keys], bool)
        views[plain] = (views[plain] + self._draw(indices[plain], calls)) % num_views
        return indices, views

    def _draw(self, indices: NDArray[np.intp], calls: int) -> NDArray[np.intp]:
        """How often each index was drawn before, in earlier batches of the epoch and in this one."""
        if self._counts is None or self._calls != calls:
            self._counts, self._calls = np.zeros(self._length, np.uint16), calls
        unique, places, counts = np.unique(indices, return_inverse=True, return_counts=True)
        earlier = self._counts[indices].astype(np.intp)
        if len(unique) < len(indices):
            order = np.argsort(places, kind="stable")
            starts = np.repeat(np.cumsum(counts) - counts, counts)
            earlier[order] += np.arange(len(indices)) - starts
        self._counts[unique] += counts.astype(np.uint16)
        return earlier
