"""Sums of exponentials as logs, and the largest values of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def largest_places(logits: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """(B, count) in rising order, where the `count` largest of a row are; of equal ones those with the lower places."""
    outputs = logits.shape[1]
    if count == outputs:
        return np.arange(outputs).repeat(len(logits)).reshape(outputs, len(logits)).T.copy()
    least = np.partition(logits, outputs - count, axis=1)[:, outputs - count, None]
    kept = logits >= least
    if np.count_nonzero(kept) > count * len(logits):
        equal = logits == least
        wanted = count - (kept.sum(axis=1) - equal.sum(axis=1))
        kept &= ~equal | (np.cumsum(equal, axis=1) <= wanted[:, None])
    return np.asarray((np.flatnonzero(kept) % outputs).reshape(len(logits), count))


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
