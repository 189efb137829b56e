"""How a large table is gone through: some thousands of rows at a time, whatever its length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ROWS = 8192


def row_chunks(count: int) -> Iterator[NDArray[np.intp]]:
    """The rows 0 to `count` − 1 in order, at most ROWS at a time."""
    for first in range(0, count, ROWS):
        yield np.arange(first, min(count, first + ROWS))
