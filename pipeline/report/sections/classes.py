"""Squares of classes by classes, and which of many classes they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CLASSES = 50
"""Classes that a chart shows."""
MAX_SQUARE = 4_096
"""Classes that are held against each other at all: a square of so many takes 128 MiB."""


def most_confused(shares: NDArray[Any]) -> list[int]:
    """Of (C, C), the classes of the largest cells beside the diagonal, MAX_CLASSES or fewer; in their order."""
    count = len(shares)
    beside = np.nan_to_num(shares) * (1 - np.eye(count))
    enough = MAX_CLASSES**2  # cells: fewer classes do not have so many
    largest = np.argsort(-beside, axis=None, kind="stable")[:enough]
    pairs = np.stack(np.divmod(largest, count), axis=1)
    return sorted(list(dict.fromkeys(pairs.ravel().tolist()))[:MAX_CLASSES])


def squares(
    shares: NDArray[np.floating],
    shown: Sequence[int],
    names: Sequence[str],
    counts: NDArray[np.integer] | None = None,
) -> list[dict[str, Any]]:
    """Records of (C, C) shares for `charts.matrix`, of the classes shown; rows that are NaN are left out."""
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


def note(shown: Sequence[int], names: Sequence[str], chosen_as: str = "are confused most") -> str:
    """Which classes are shown, where that is not all."""
    if len(shown) == len(names):
        return ""
    return f" The {len(shown)} of {len(names):,} classes that {chosen_as}."


def by_row(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """(C, C) shares of each row's sum; NaN in a row that is empty."""
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
