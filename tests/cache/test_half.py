"""float16 is read as NumPy reads it, value by value."""

from __future__ import annotations

import numpy as np

from decant.cache.encodings.half import as_float32


def test_every_float16_is_read_as_numpy_reads_it() -> None:
    every = np.arange(1 << 16, dtype="u2").view("f2")
    finite = every[np.isfinite(every)]
    assert as_float32(finite).tobytes() == finite.astype("f4").tobytes()
    assert np.array_equal(as_float32(every), every.astype("f4"), equal_nan=True)
    assert as_float32(finite[:63_000].reshape(-1, 63)).shape == (1000, 63)
