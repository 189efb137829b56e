"""Draws outputs of a distribution without replacement, each with a probability that is known: systematic sampling with
probability proportional to size (Madow, "On the Theory of Systematic Sampling, II", 1949).

A drawn output counts 1/π times, π being its inclusion probability: the estimate of Horvitz and Thompson, "A
Generalization of Sampling Without Replacement From a Finite Universe" (1952), which is unbiased.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FEW = 2048  # items, of which passes over all are quicker than a search a row
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(
    seed: int, view: int, samples: NDArray[np.integer], positions: NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """(B,) numbers in [0, 1), a hash of (seed, view, sample, position): who computes a row again draws the same.

    samples, positions: (B,) integers of 0 or more; no positions are zeros.

    >>> first = uniforms(0, 0, np.array([5, 6]))
    >>> first[1] == uniforms(0, 0, np.array([6]))[0]
    np.True_
    """
    key = _mix(_mix(np.full(len(samples), seed, np.uint64)) + np.uint64(view))
    key = _mix(key + samples.astype(np.uint64))
    key = _mix(key + (np.uint64(0) if positions is None else positions.astype(np.uint64)))
    return (key >> np.uint64(11)).astype(np.float64) * 2.0**-53


def thresholds(
    largest: NDArray[np.float64], others: NDArray[np.float64], head: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """((B,) h, (B,) τ): how the k places of a row are filled. The h largest are certain, at least `head` of them. Of
    all the rest k − h are drawn, each with probability π = m/τ < 1. τ is 0 where h = k: the rest have no mass then.

    largest: (B, k) the k largest of m by falling value; others: (B,) Σ m of all but these.

    >>> thresholds(np.array([[0.5, 0.2]]), np.array([0.3]), head=0)
    (array([1]), array([0.5]))
    """
    slots = largest.shape[1]
    # Σ m of all but the j largest, the small ones first: of a small rest a difference from 1 would say nothing.
    left = np.concatenate([others[:, None], largest[:, ::-1]], axis=1).cumsum(axis=1)[:, :0:-1]
    limits = left / np.arange(slots, 0, -1)
    drawn = largest < limits
    drawn[:, :head] = False
    drawn = np.concatenate([drawn, np.ones((len(drawn), 1), np.bool_)], axis=1)
    certain = drawn.argmax(axis=1)
    limits = np.concatenate([limits, np.zeros((len(drawn), 1))], axis=1)
    return certain, np.take_along_axis(limits, certain[:, None], axis=1)[:, 0]


def systematic(
    sizes: NDArray[np.float64], counts: NDArray[np.intp], uniform: NDArray[np.float64]
) -> NDArray[np.intp]:
    """(Σ counts,): which items are drawn of each row (B, C), one row after another, by their number: `counts` (B,) of a
    row, an item with probability counts·size / Σ size, which must be below 1.

    The items lie end to end, by their number, on a line of length `counts`, and those are drawn in which one of the
    points u, u + 1, u + 2, … lies, with one u (B,) in [0, 1) for the whole row.

    >>> systematic(np.array([[0.1, 0.3, 0.0, 0.6]]), np.array([1]), np.array([0.2])).tolist()
    [1]
    """
    ends = sizes.cumsum(axis=1)
    ends *= counts[:, None] / np.where(ends[:, -1:] > 0, ends[:, -1:], 1)
    drawn = _by_search(ends, counts, uniform) if sizes.shape[1] > _FEW else _by_passes(ends, counts, uniform)
    for row, found in enumerate(drawn):
        if len(found) < counts[row]:  # by rounding, about once in 10¹³ rows
            left = sizes[row].copy()
            left[found] = -1
            more = np.argsort(-left, kind="stable")[: counts[row] - len(found)]
            drawn[row] = np.sort(np.concatenate([found, more]))
    return np.concatenate(drawn) if drawn else np.zeros(0, np.intp)


def draw_rows(
    exps: Sequence[NDArray[np.float64]],
    sums: Sequence[NDArray[np.float64]],
    ids: NDArray[np.intp],
    head: int,
    uniform: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """((B,) h, (B,) τ) of rows whose m is the mean of softmaxes, and puts what is drawn into `ids` (B, k), which have
    the largest.

    exps: (B, C) e^(t/T) at each temperature; sums: (B,) of these. head, uniform: as `thresholds` and `systematic` take
    them.

    >>> shares, ids = np.array([[0.5, 0.1, 0.3, 0.1]]), np.array([[0, 2]])
    >>> certain, tau = draw_rows([shares], [np.ones(1)], ids, 0, np.array([0.2]))
    >>> certain.tolist(), tau.tolist(), ids.tolist()
    ([1], [0.5], [[0, 2]])
    """
    design = exps[0] / (sums[0] * len(exps))[:, None]
    for exp, total in zip(exps[1:], sums[1:], strict=True):
        design += exp / (total * len(exps))[:, None]
    largest = np.take_along_axis(design, ids, axis=1)
    np.put_along_axis(design, ids, 0, axis=1)
    certain, tau = thresholds(largest, design.sum(axis=1), head)
    chance = np.arange(ids.shape[1]) >= certain[:, None]
    np.put_along_axis(design, ids, np.where(chance, largest, 0), axis=1)
    ids[chance] = systematic(design, ids.shape[1] - certain, uniform)
    return certain, tau


def _by_search(
    ends: NDArray[np.float64], counts: NDArray[np.intp], uniform: NDArray[np.float64]
) -> list[NDArray[np.intp]]:
    """The items of each row in which a point lies, found from the points."""
    found = []
    for row, count in enumerate(counts.tolist()):
        items = np.searchsorted(ends[row], uniform[row] + np.arange(count), side="right")
        found.append(np.unique(items[items < ends.shape[1]]))
    return found


def _by_passes(
    ends: NDArray[np.float64], counts: NDArray[np.intp], uniform: NDArray[np.float64]
) -> list[NDArray[np.intp]]:
    """The same, found in a few passes over all items of all rows."""
    points = np.ceil(ends - uniform[:, None]).clip(0, counts[:, None])  # that lie before each end
    rows, items = np.nonzero(np.diff(points, axis=1, prepend=0) > 0)
    return np.split(items, np.searchsorted(rows, np.arange(1, len(ends)))) if len(ends) else []


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): every input bit reaches every output bit."""
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
