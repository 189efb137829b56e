"""Whether rows of another program are about the tokens that follow: how often these are among their outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import warn
from decant.cache.positions import Positions

SHIFTS = (1, 0, 2)
"""The next token, the token itself, and the one after the next."""
_TELLING = 32  # positions, below which nothing is said
_LOOKED_AT = 4096


def shares_at_shifts(ids: NDArray[np.integer], of: Positions) -> tuple[list[float], int]:
    """([(share of rows)], count): in how many of some rows, spread evenly, the token at each of `SHIFTS` is among the
    outputs. ids: (P, k). The tokens must be stored.
    """
    assert of.tokens is not None
    assert of.token_lengths is not None
    count = max(1, _LOOKED_AT * of.num_samples // max(1, of.num_positions))
    samples = np.unique(np.linspace(0, of.num_samples - 1, count).astype(np.intp))
    own, some = of.token_rows(samples), ids[of.lengths.rows(samples)]
    ends = of.token_lengths.starts(np.repeat(samples, of.lengths.of(samples)) + 1)
    shares = []
    for shift in SHIFTS:
        other = np.minimum(own + shift, ends - 1)
        hits = (some == of.tokens[other][:, None].astype(np.int64)).any(axis=1) & (own + shift < ends)
        shares.append(float(hits.mean()) if len(hits) else 0.0)
    return shares, len(own)


def warn_of_shift(where: object, shares: Sequence[float], rows: int) -> None:
    """Warns where the next token is among the outputs of fewer rows than another is."""
    after, *others = shares
    if rows >= _TELLING and after < max(others):
        what = "the token itself" if others[0] >= others[1] else "the token after the next"
        warn(
            f"{where}: the next token is among the outputs of a row in {after:.0%} of positions, and {what} in "
            f"{max(others):.0%}: rows that are shifted, or of other texts?"
        )
