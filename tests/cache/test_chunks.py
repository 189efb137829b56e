"""Chunks are every row once, in order, and never too many."""

from __future__ import annotations

import numpy as np
import pytest

from decant.cache.chunks import ROWS, row_chunks


@pytest.mark.parametrize("count", [0, 1, ROWS - 1, ROWS, ROWS + 1, 5 * ROWS + 3])
def test_chunks_are_every_row_once_in_order(count: int) -> None:
    chunks = list(row_chunks(count))
    assert np.array_equal(np.concatenate([*chunks, np.arange(0)]), np.arange(count))
    assert all(0 < len(chunk) <= ROWS for chunk in chunks)
