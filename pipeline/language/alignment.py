"""Whether a batch is of the tokens that the teacher read, and its rows are of the places that predict the next ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, MismatchError, SparseRows
from decant.pipeline.corpus.difference import Decode, difference


def require_same_tokens(
    cache: LogitCache,
    indices: NDArray[np.int64],
    ids: NDArray[np.int64],
    lengths: NDArray[np.int64],
    decode: Decode,
) -> None:
    """Raises MismatchError, naming the first token that differs and what stands around it, where a batch has other
    tokens than the teacher read.

    ids: (T,) tokens of the samples one after another, without padding. lengths: (B,) how many of each.
    """
    expected, offsets = cache.tokens(indices)
    if np.array_equal(ids, expected):
        return
    begins = np.cumsum(lengths) - lengths
    for number, index in enumerate(indices.tolist()):
        theirs = expected[offsets[number] : offsets[number + 1]]
        ours = ids[begins[number] : begins[number] + lengths[number]]
        if not np.array_equal(ours, theirs):
            raise MismatchError(f"{cache.path}: sample {index:,}: {difference(ours, theirs, decode)}")
    raise MismatchError(
        f"{cache.path}: the batch has {len(ids):,} tokens, and the teacher read {len(expected):,}"
    )


def require_aligned(
    cache: LogitCache,
    indices: NDArray[np.int64],
    rows: SparseRows,
    next_ids: NDArray[np.int64],
    next_log_prob: NDArray[np.float32],
) -> None:
    """Raises MismatchError where a row says of the token that follows another probability than was recorded when it was
    written: it is then of another place.

    next_ids: (Q,) the token that each row is about, by the batch. next_log_prob: (Q,) what was recorded.
    """
    count = rows.ids.shape[1]
    at = np.flatnonzero(rows.ids == next_ids[:, None].astype(rows.ids.dtype))  # at most one of a row
    inside = at // count
    recorded = next_log_prob.astype(np.float32)
    room = 4e-3 * np.abs(recorded) + 2e-3  # both were rounded to float16
    last = count - 1 if rows.certain is None else np.maximum(rows.certain - 1, 0)
    off = recorded > rows.log_probs[np.arange(len(recorded)), last] + room  # likelier than what was kept
    if rows.certain is not None:
        off &= rows.certain > 0
    off[inside] = np.abs(rows.log_probs.reshape(-1)[at] - recorded[inside]) > room[inside]
    if off.any():
        row = int(np.flatnonzero(off)[0])
        sample = np.repeat(indices, cache.lengths[indices])[row]
        place = int(cache.places(indices)[row])
        raise MismatchError(
            f"{cache.path}: sample {sample:,}, token {place:,}: its row is not about the token that follows there, so "
            f"the rows are of other places, as where they are shifted by one: {int(off.sum()):,} of {len(off):,} are so"
        )
