"""Which rows are asked for: indices, masks, slices and views, as NumPy takes them, checked for their range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def as_rows(indices: ArrayLike | slice, samples: int) -> NDArray[Any]:
    """Integers from whatever NumPy indexes with; still to be checked for their range."""
    if isinstance(indices, slice):
        return np.arange(*indices.indices(samples))
    rows = np.asarray(indices)
    if rows.dtype == bool:
        if rows.shape != (samples,):
            raise IndexError(f"a boolean index must have shape ({samples},), found {rows.shape}")
        return np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" and rows.size:
        raise IndexError(f"indices must be integers, found {rows.dtype}")
    if rows.dtype.kind == "u" and rows.size and rows.max() >= samples:
        raise outside(rows, samples)
    return rows.astype(np.intp)


def one_by_one(rows: NDArray[Any]) -> NDArray[Any]:
    """(B,) samples, which may have any number of rows each; one sample is (1,). Raises IndexError for several axes."""
    if rows.ndim > 1:
        raise IndexError(f"indices: expected (B,) samples with several rows each, found {rows.shape}")
    return rows.reshape(-1)


def from_start(rows: NDArray[np.intp], samples: int) -> NDArray[np.intp]:
    """Rows in 0..N−1, of which negative ones counted from the end. Raises IndexError."""
    if rows.size and not -samples <= rows.min() <= rows.max() < samples:
        raise outside(rows, samples)
    return np.where(rows < 0, rows + samples, rows)


def views_of(view: ArrayLike, rows: NDArray[Any], count: int) -> NDArray[np.intp]:
    """() or (B,): a view for each of these rows, of `count` views. Raises IndexError."""
    views = np.asarray(view)
    if views.dtype.kind not in "iu" or views.shape not in ((), rows.shape):
        raise IndexError(f"view: expected an integer or {rows.shape}, found {views.shape} {views.dtype}")
    if views.size and not 0 <= views.min() <= views.max() < count:
        raise IndexError(f"view {views.min()} to {views.max()}: the cache has {count}")
    return views.astype(np.intp, copy=False)


def outside(rows: NDArray[Any], samples: int) -> IndexError:
    """Of samples of which one is not there."""
    return IndexError(f"sample {rows.min()} to {rows.max()}: the cache has 0 to {samples - 1:,}")
