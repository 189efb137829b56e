"""Random boxes in an image, which random-resized-crop keeps and random-erasing fills."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.views.hashing import Bits, below

Draw = NDArray[np.int64]
Box = tuple[Draw, Draw, Draw, Draw]
"""(top, left, height, width), (B,) int64 each."""

TRIES = 10
COUNTERS = TRIES + 2
"""How many of the 16 counters a box uses, from the first."""


def draw_box(
    bits: Bits, area: int, largest: tuple[int, int], scale: Sequence[float], ratio: Sequence[float]
) -> tuple[Draw, Draw]:
    """(height, width) of the first of 10 tries that is no larger than `largest`; (0, 0) where none is.

    The box's share of `area` is uniform in `scale`, its width over height log-uniform in `ratio`.
    """
    halves = bits[:, :TRIES] >> np.uint64(32), bits[:, :TRIES] & np.uint64(0xFFFFFFFF)
    share = scale[0] + (scale[1] - scale[0]) * (halves[0].astype(np.float64) * 2.0**-32)
    aspect = log_uniform(halves[1], *ratio)
    height = np.rint(np.sqrt(area * share / aspect)).astype(np.int64)
    width = np.rint(np.sqrt(area * share * aspect)).astype(np.int64)
    fits = (height >= 1) & (height <= largest[0]) & (width >= 1) & (width <= largest[1])
    rows, first = np.arange(len(bits)), fits.argmax(axis=1)
    any_fits = fits[rows, first]
    return height[rows, first] * any_fits, width[rows, first] * any_fits


def place_box(bits: Bits, shape: tuple[int, int], height: Draw, width: Draw) -> tuple[Draw, Draw]:
    """(top, left), uniform, of boxes inside an image of `shape` (H, W)."""
    top = below(bits[:, TRIES], shape[0] - height + 1)
    left = below(bits[:, TRIES + 1], shape[1] - width + 1)
    return top, left


def log_uniform(fraction: NDArray[np.uint64], low: float, high: float) -> NDArray[np.float64]:
    """low·(high / low)^u, u the `fraction` in units of 2⁻³², with products and square roots alone: those are
    rounded alike on every machine, exponentials are not.
    """
    power, root = np.full(fraction.shape, low, np.float64), high / low
    for bit in range(31, -1, -1):
        root = math.sqrt(root)
        power *= np.where(fraction >> np.uint64(bit) & np.uint64(1), root, 1.0)
    return power
