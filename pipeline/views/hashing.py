"""Random bits that are a pure function of (seed, sample, view, operation): a counter-based hash, no state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]

COUNTERS = 16
"""Random numbers that one operation gets for one view of one sample."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def choices(
    seed: int,
    indices: NDArray[np.integer],
    views: NDArray[np.integer],
    operation: int,
    count: int = COUNTERS,
) -> Bits:
    """(B, 16) uint64: the random bits that one operation has for each sample, each from its own counter; or the first
    `count` of them.
    """
    key = _mix(_mix(np.full(len(indices), seed, np.uint64)) + indices.astype(np.uint64))
    key = _mix(key + views.astype(np.uint64))
    counters = np.arange(operation * COUNTERS, operation * COUNTERS + count, dtype=np.uint64)
    return _mix(key[:, None] + counters * _GOLDEN)


def below(bits: Bits, bound: int | NDArray[np.integer]) -> NDArray[np.int64]:
    """Uniform integers 0 … bound − 1 from random bits: the high 32 bits, scaled (Lemire, 2019)."""
    return ((bits >> np.uint64(32)) * np.asarray(bound, np.uint64) >> np.uint64(32)).astype(np.int64)


def uniform(bits: Bits) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), multiples of 2⁻⁵³, from the high 53 bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def chance(bits: Bits, probability: float) -> NDArray[np.bool_]:
    """True with `probability`."""
    return uniform(bits) < probability


def _mix(value: Bits) -> Bits:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): every input bit reaches every output bit."""
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
