"""float16 is read as NumPy reads it, value by value."""

from __future__ import annotations

import numpy as np

from decant.cache.encodings.half import all_finite, as_float32


def test_every_float16_is_read_as_numpy_reads_it() -> None:
    every = np.arange(1 << 16, dtype="u2").view("f2")
    finite = every[np.isfinite(every)]
    assert as_float32(finite).tobytes() == finite.astype("f4").tobytes()
    assert np.array_equal(as_float32(every), every.astype("f4"), equal_nan=True)
    assert as_float32(finite[:63_000].reshape(-1, 63)).shape == (1000, 63)


def test_what_is_not_finite_is_found_wherever_it_lies() -> None:
    every = np.arange(1 << 16).astype("<u2").view("<f2")
    finite = np.isfinite(every)
    assert all_finite(every[finite])
    assert not any(all_finite(every[place : place + 1]) for place in np.flatnonzero(~finite))
    large = np.zeros((300, 1000), "<f2")  # several pieces
    assert all_finite(large)
    for place in ((0, 0), (150, 7), (299, 999)):
        large[place] = -np.inf
        assert not all_finite(large)
        assert not all_finite(large.T)
        large[place] = -65504
