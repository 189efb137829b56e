"""What a sparse row proves about the mass of the outputs that it leaves out, at a temperature that it does not declare.

With a = 1/T, R_a = Σ e^(a·t) over those outputs has a convex logarithm, as every log-sum-exp. It is known at the
declared temperatures, and at a = 0, where R is their number. So between two known points it lies below their chord, and
above the chords of the two pairs beside, drawn out; and beyond the largest a its slope is at most the largest of these
logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.log_sums import log_sum_exp

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


def log_tail_bounds(
    log_probs: NDArray[np.floating],
    log_tail: NDArray[np.floating],
    temperatures: Sequence[float],
    num_outputs: int,
    temperature: float,
    largest_left: NDArray[np.floating] | None = None,
) -> Bounds:
    """((Q,) least, (Q,) most): proven bounds of the log mass at `temperature` of the outputs that are not stored; both
    () for one row (k,).

    log_probs: (Q, k) log softmax of the stored outputs at T = 1. log_tail: (Q, m) log mass of the others at each of the
    `temperatures`. largest_left: (Q,) what no other's log softmax at T = 1 exceeds; None is the least that is stored,
    which is right where the largest are.

    >>> rows = np.log([[0.5, 0.3]]), np.log([[0.2, 0.3]])
    >>> least, most = log_tail_bounds(*rows, (1.0, 2.0), num_outputs=4, temperature=1.5)
    >>> bool(least[0] < most[0])
    True
    """
    kept, others = log_probs.astype("f8"), num_outputs - log_probs.shape[-1]
    if not others:
        nothing = np.full(kept.shape[:-1], -np.inf)
        return nothing, nothing
    order = sorted(range(len(temperatures)), key=lambda place: -temperatures[place])
    known = [0.0, *(1 / temperatures[place] for place in order)]
    values = [np.full(kept.shape[:-1], np.log(others))]
    for place in order:
        tail = np.minimum(log_tail[..., place].astype("f8"), -1e-12)
        values.append(tail - np.log(-np.expm1(tail)) + log_sum_exp(kept / temperatures[place]))
    left = kept.min(axis=-1) if largest_left is None else largest_left.astype("f8")
    least, most = _between(known, values, 1 / temperature, left)
    inside = log_sum_exp(kept / temperature)
    return least - np.logaddexp(least, inside), most - np.logaddexp(most, inside)


def interpolated(bounds: Bounds) -> NDArray[np.float64]:
    """(Q,) log mass in the middle of its bounds: off by half of their distance at most.

    >>> interpolated((np.array([-2.0]), np.array([-1.0])))
    array([-1.5])
    """
    return np.where(np.isneginf(bounds[1]), -np.inf, (bounds[0] + bounds[1]) / 2)


def bounds_in_words(bounds: Bounds) -> str:
    """For messages: how far apart bounds are.

    >>> bounds_in_words((np.array([-2.0, -3.0]), np.array([-1.9, -2.5])))
    '0.3 nats wide on average, 0.5 at most'
    """
    apart = np.nan_to_num(bounds[1] - bounds[0])
    return f"{apart.mean():.2g} nats wide on average, {apart.max():.2g} at most"


def _between(
    known: Sequence[float], values: Sequence[NDArray[np.float64]], at: float, slope: NDArray[np.float64]
) -> Bounds:
    """Bounds at `at` > 0 of a convex function with these values at rising points, whose slope is at most `slope`."""
    after = int(np.searchsorted(known, at))
    sides = []
    if after >= 2:
        sides.append(_line(known, values, after - 2, at))
    if after + 1 < len(known):
        sides.append(_line(known, values, after, at))
    if after < len(known):
        most = _line(known, values, after - 1, at)
        # The curve rises by no more than that to the next point.
        sides.append(values[after] - slope * (known[after] - at))
    else:
        most = values[-1] + slope * (at - known[-1])
    return np.minimum(np.maximum.reduce(sides), most), most


def _line(
    known: Sequence[float], values: Sequence[NDArray[np.float64]], first: int, at: float
) -> NDArray[np.float64]:
    """The line through points `first` and the next, at `at`."""
    share = (at - known[first]) / (known[first + 1] - known[first])
    return np.asarray(values[first] + share * (values[first + 1] - values[first]))
