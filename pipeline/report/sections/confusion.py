"""Confusion matrices, and which classes a chart shows where there are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CLASSES = 50
"""The most classes that a chart shows."""
MAX_MATRIX = 4_096
"""Above this many classes no matrix is made: one of so many classes takes 128 MiB."""


def matrix(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The confusion matrix (C, C): counts by label (row) and predicted class (column)."""
    count = logits.shape[1]
    pairs = labels * count + logits.argmax(1)
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def row_shares(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """(C, C): each count as a share of its row's sum; NaN in an empty row."""
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def most_confused(shares: NDArray[Any]) -> list[int]:
    """The classes of the largest off-diagonal cells of (C, C): at most MAX_CLASSES, in ascending order."""
    count = len(shares)
    beside = np.nan_to_num(shares) * (1 - np.eye(count))
    enough = MAX_CLASSES**2  # cells: fewer classes do not have so many
    largest = np.argsort(-beside, axis=None, kind="stable")[:enough]
    pairs = np.stack(np.divmod(largest, count), axis=1)
    return sorted(list(dict.fromkeys(pairs.ravel().tolist()))[:MAX_CLASSES])


def cells(
    shares: NDArray[np.floating],
    shown: Sequence[int],
    names: Sequence[str],
    counts: NDArray[np.integer] | None = None,
) -> list[dict[str, Any]]:
    """The cells of (C, C) shares as records for `charts.matrix`: those of the classes shown, without NaN rows."""
    return [
        {
            "row": names[row],
            "column": names[column],
            "value": round(float(shares[row, column]), 5),
            **({} if counts is None else {"count": int(counts[row, column])}),
        }
        for row in shown
        if not np.isnan(shares[row]).any()
        for column in shown
    ]


def which_classes(shown: Sequence[int], names: Sequence[str], chosen_as: str = "are confused most") -> str:
    """A sentence that says which classes are shown; empty where all are."""
    if len(shown) == len(names):
        return ""
    return f" The {len(shown)} of {len(names):,} classes that {chosen_as}."
