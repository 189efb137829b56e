"""Whether a server still has the model that it had: by what it says of the same tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

APART = 0.1
"""Nats, on average, above which a model is another one; bfloat16 and other batches give some hundredths."""
_FAR = 5.0


def distance(
    ids: NDArray[np.integer],
    log_probs: NDArray[np.floating],
    new_ids: NDArray[np.integer],
    new_log_probs: NDArray[np.floating],
) -> float:
    """The mean over places of how far the log-probability of the likeliest token is from what it was, in nats; 5 where
    it is not among those that are listed now.

    ids and log_probs: (Q, k) by falling log-probability, and the same anew.

    >>> distance(np.array([[3, 1]]), np.array([[-0.5, -2.0]]), np.array([[1, 3]]), np.array([[-0.6, -0.75]]))
    0.25
    """
    listed = new_ids == ids[:, :1]
    with np.errstate(invalid="ignore"):
        found = np.where(listed, new_log_probs, -np.inf).max(axis=1)
        apart = np.abs(found.astype(np.float64) - log_probs[:, 0])
    return float(np.minimum(np.nan_to_num(apart, nan=_FAR, posinf=_FAR), _FAR).mean())


def is_another(apart: float) -> bool:
    """Whether so many nats are more than rounding.

    >>> is_another(0.03), is_another(0.4)
    (False, True)
    """
    return apart > APART
