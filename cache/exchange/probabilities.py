"""Tables of probabilities where logits are meant: refused, or on request turned into logits that they follow from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import ValueRefusedError
from decant.cache.source import row_chunks
from decant.cache.statistics.plausibility import are_probabilities

_LEAST = 1e-12  # probability, whose logarithm is taken of anything smaller


def logits_of(probabilities: NDArray[np.floating], *, sigmoids: bool = False) -> NDArray[np.float64]:
    """Logits (…, C) whose softmax gives these rows, or whose sigmoids give these values, of at least 1e-12 each.

    >>> logits_of(np.array([[1.0, 0.0]])).round(1).tolist()
    [[0.0, -27.6]]
    >>> logits_of(np.array([[0.5, 1.0]]), sigmoids=True).round(1).tolist()
    [[0.0, 27.6]]
    """
    given = probabilities.astype(np.float64)
    logits = np.log(np.maximum(given, _LEAST))
    return logits - np.log(np.maximum(1 - given, _LEAST)) if sigmoids else logits


def require_logits(table: NDArray[np.floating], probabilities: bool, *, sigmoids: bool = False) -> None:
    """Raises ValueRefusedError where rows (V, N, C) are probabilities and should be logits, or the other way round.

    Of sigmoids only the second is certain: logits may happen to lie between 0 and 1.
    """
    if table.shape[2] < 2 and not sigmoids:
        if probabilities:
            raise ValueRefusedError("probabilities: of one column there is no softmax")
        return
    chunks = [(view, rows) for view in range(len(table)) for rows in row_chunks(table.shape[1])]
    if probabilities:
        for view, rows in chunks:
            found = table[view, rows]
            if not (_are_shares(found) if sigmoids else are_probabilities(found)):
                kind = "between 0 and 1" if sigmoids else "0 or more with sum 1"
                raise ValueRefusedError(
                    f"probabilities: rows {rows[0]:,} to {rows[-1]:,} of view {view} are not all {kind}"
                )
    elif not sigmoids and all(are_probabilities(table[view, rows]) for view, rows in chunks):
        raise ValueRefusedError(
            "logits: every row is 0 or more and sums to 1: these are probabilities, whose softmax says next to "
            "nothing; give the outputs before softmax, or say --probabilities (in Python probabilities=True), which "
            "takes their logarithm"
        )


def _are_shares(rows: NDArray[np.floating]) -> bool:
    return bool(rows.min(initial=0.0) >= 0 and rows.max(initial=1.0) <= 1)
