"""What the cache has recorded of several batches, looked up in one call before the batches are made.

A batch of 256 small images is made in half a millisecond, which leaves neither the code nor the rows of what is done
beside it in the processor's caches: a look-up for each batch takes several times as long as one for many.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.io.checksum import crc32
from decant.cache.source import LogitSource


class ExpectedBatches:
    """The labels of several batches of rows, and the checksum of the first input of each.

    >>> import tempfile
    >>> from decant.cache import LogitCache, Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = import_logits(Store(folder.name), 5 * np.eye(3), np.arange(3), teacher={}, data={"name": "toy"})
    >>> rows, views = np.array([2, 0, 1]), np.zeros(3, np.intp)
    >>> expected = ExpectedBatches(LogitCache.open(path), rows, views, [0, 2, 3])  # two batches
    >>> import torch
    >>> expected.has_labels(0, torch.tensor([2, 0])), expected.has_labels(1, torch.tensor([2]))
    (True, False)
    >>> folder.cleanup()
    """

    def __init__(
        self, cache: LogitSource, rows: NDArray[np.intp], views: NDArray[np.intp], bounds: Sequence[int]
    ) -> None:
        """rows, views: (B,), of all batches one after another. bounds: where each of them begins, and B."""
        labels, recorded = cache.labels.take(rows, 0), cache.input_crc32
        self._dtype, self._bounds = labels.dtype, bounds
        self._size = labels.itemsize if labels.ndim == 1 and labels.dtype.kind in "iu" else 0
        """Bytes of a class id; 0 of targets, which are compared one by one."""
        self._labels, self._compared = labels.tobytes(), False
        self._crcs = [
            int(recorded[views[first], rows[first]]) if end > first else 0 for first, end in pairwise(bounds)
        ]

    def compare_labels(self, labels: NDArray[Any]) -> None:
        """Compares the labels of all batches, which `has_labels` is then not asked to do for each."""
        same = bool(self._size) and labels.ndim == 1 and labels.dtype is self._dtype
        self._compared = same and labels.tobytes() == self._labels

    def has_labels(self, number: int, labels: Any) -> bool:
        """Whether a tensor of labels is, byte by byte, what was recorded of batch `number`: class ids of the same dtype
        on the host. False for anything else, which may still be the same labels.
        """
        if self._compared:
            return True
        first = self._bounds[number]
        try:
            given = labels.numpy()
            if (
                given.ndim != 1
                or given.dtype is not self._dtype
                or len(given) != self._bounds[number + 1] - first
            ):
                return False
            # This copies nothing.
            return bool(self._size) and self._labels.startswith(given, self._size * first)
        except (AttributeError, TypeError, RuntimeError, ValueError):
            return False

    def has_first_input(self, number: int, inputs: Any) -> bool:
        """Whether there is an input for each sample of batch `number`, and the first has the checksum that was recorded
        of it, or none was. False for anything but a tensor on the host, which may still be the same inputs.
        """
        recorded = self._crcs[number]
        try:
            given = inputs.numpy()
            if len(given) < self._bounds[number + 1] - self._bounds[number]:
                return False
            return not recorded or crc32(given[0]) == recorded
        except (AttributeError, TypeError, RuntimeError, IndexError, ValueError, BufferError):
            return False
