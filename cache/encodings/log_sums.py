"""Sums of exponentials as logs, and the largest values of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GROUP = 32  # logits of which the largest is looked at first
_FEWEST_GROUPS = 2  # times as many as logits are wanted, below which all are looked at
_MOST_TIMES = 8  # as many as are wanted may be left


def largest_places(logits: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """(B, count) in rising order, where the `count` largest of a row are; of equal ones those with the lower places."""
    rows, outputs = logits.shape
    if count == outputs:
        return np.arange(outputs).repeat(rows).reshape(outputs, rows).T.copy()
    if rows and outputs > _GROUP * _FEWEST_GROUPS * count:
        places = _largest_of_few(logits, count)
        if places is not None:
            return places
    least = np.partition(logits, outputs - count, axis=1)[:, outputs - count, None]
    kept = logits >= least
    if np.count_nonzero(kept) > count * rows:
        equal = logits == least
        wanted = count - (kept.sum(axis=1) - equal.sum(axis=1))
        kept &= ~equal | (np.cumsum(equal, axis=1) <= wanted[:, None])
    return np.asarray((np.flatnonzero(kept) % outputs).reshape(rows, count))


def _largest_of_few(logits: NDArray[np.floating], count: int) -> NDArray[np.intp] | None:
    """The same in less time, as the `count` largest are at least as large as the largest of so many groups; None where
    that leaves many, or some are equal.
    """
    rows, outputs = logits.shape
    groups = outputs // _GROUP
    most = logits[:, : groups * _GROUP].reshape(rows, _GROUP, groups).max(axis=1)
    bound = np.partition(most, groups - count, axis=1)[:, groups - count, None]
    found = np.flatnonzero(logits >= bound)
    of_row, places = np.divmod(found, outputs)
    first = np.searchsorted(of_row, np.arange(rows + 1))
    width = int(np.diff(first).max())
    if width > _MOST_TIMES * count:
        return None
    values = logits[of_row, places]
    few = np.full((rows, width), -np.inf, logits.dtype)
    few[of_row, np.arange(len(found)) - first[of_row]] = values
    least = np.partition(few, width - count, axis=1)[:, width - count]
    kept = values >= least[of_row]
    if np.count_nonzero(kept) > count * rows:
        return None
    return places[kept].reshape(rows, count)


def log_rest(
    exp: NDArray[np.float64], ids: NDArray[np.intp], centred: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """(B,) log Σ e^(t/T) of all outputs but these, from `exp` (B, C), which it uses up."""
    np.put_along_axis(exp, ids, 0, axis=1)
    rest = exp.sum(axis=1)
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = np.log(rest)
    tiny = np.flatnonzero(rest < 1e-250)  # lost to underflow
    if len(tiny):
        others = centred[tiny] / temperature
        np.put_along_axis(others, ids[tiny], -np.inf, axis=1)
        found[tiny] = log_sum_exp(others)
    return found


def log_sum_exp(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """(…,) log Σ exp over the last axis; −∞ where every value is."""
    most = values.max(axis=-1, keepdims=True)
    most = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        result: NDArray[np.float64] = np.log(np.exp(values - most).sum(axis=-1)) + most[..., 0]
    return result
