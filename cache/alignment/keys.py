"""What a dataset of several views is indexed with: (index, view)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Key = int | tuple[int, int]
"""The index of a sample, or (index, view)."""

Keys = Sequence[Key] | NDArray[np.integer]
"""Several keys; as an array, (B, 2) of index and view."""


def split_keys(keys: Keys, length: int, view: int = 0) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Splits keys into (indices (B,), views (B,)); a key without a view is of `view`. Negative indices count from the
    end of `length` samples.

    Raises IndexError where an index or a view is out of range, TypeError for keys that are neither an index nor (index,
    view).

    >>> indices, views = split_keys([3, (0, 2), (-1, 1)], length=10)
    >>> indices.tolist(), views.tolist()
    ([3, 0, 9], [0, 2, 1])
    """
    if isinstance(keys, np.ndarray) and keys.ndim == 2:
        pairs = keys.astype(np.intp, copy=False)  # (B, 2), as a batch sampler hands them out
    else:
        listed = [key if isinstance(key, tuple) else (key, view) for key in keys]
        try:
            given: NDArray[Any] = np.asarray(listed)
            pairs = given.reshape(-1, 2).astype(np.intp, casting="same_kind" if given.size else "unsafe")
        except (TypeError, ValueError):
            raise TypeError(_no_keys(listed)) from None
    indices, views = pairs[:, 0], pairs[:, 1]
    if not len(pairs):
        return indices, views
    if views.min() < 0:
        raise IndexError(f"view {views.min()}: views count from 0")
    if int(indices.view(np.uintp).max()) < length:  # so none is below 0 either: the usual case
        return indices, views
    least, most = indices.min(), indices.max()
    if not -length <= least <= most < length:
        raise IndexError(f"sample {least} to {most}: the dataset has 0 to {length - 1:,}")
    return np.where(indices < 0, indices + length, indices), views


def _no_keys(keys: list[Any]) -> str:
    """Of keys, which is none."""
    wrong: Any = next((key for key in keys if len(key) != 2 or not all(map(_is_whole, key))), keys)
    found = wrong[0] if isinstance(wrong, tuple) and len(wrong) == 2 and _is_whole(wrong[1]) else wrong
    several = isinstance(found, list | slice | np.ndarray)
    return f"key: expected an index or (index, view), found {found!r}" + (
        "; of several samples at once give a DataLoader batch_sampler=…, or its batch_size" if several else ""
    )


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
