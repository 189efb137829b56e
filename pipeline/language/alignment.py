"""Whether a batch is of the tokens that the teacher read, and its rows are of the places that predict the next ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, MismatchError, SparseRows, require_equal
from decant.pipeline.corpus import TokenSamples

Decode = Callable[[list[int]], str] | None
_AROUND = 5  # tokens shown on each side


def require_same_samples(samples: TokenSamples, cache: LogitCache) -> None:
    """Raises MismatchError, naming every field that differs, where a cache is of other texts, another tokenizer or
    other samples.
    """
    if not cache.has_positions:
        raise MismatchError(
            f"{cache.path}: is a cache of whole samples, and a language model's has a row for each token; "
            "decant.language.cache_logits makes one"
        )
    require_equal(
        {"data": {**samples.identity, "length": len(samples), "targets": None}},
        {"data": cache.manifest.identity["data"]},
        subject=f"{cache.path}: is of other tokens",
        hint="Tokenise and lay out the texts as the cache says, or cache the teacher's logits of these.",
        sections=("data",),
    )


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
            raise MismatchError(f"{cache.path}: sample {index:,}: {_difference(ours, theirs, decode)}")
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


def _difference(ours: NDArray[np.int64], theirs: NDArray[np.int64], decode: Decode) -> str:
    """The first difference in words, with what explains it."""
    shared = min(len(ours), len(theirs))
    different = np.flatnonzero(ours[:shared] != theirs[:shared])
    place = int(different[0]) if len(different) else shared
    if place == shared:
        text = f"the batch has {len(ours):,} tokens of it, and the teacher read {len(theirs):,}"
    else:
        text = (
            f"token {place:,} is {_shown(ours[place : place + 1], decode)} in the batch, and the teacher read "
            f"{_shown(theirs[place : place + 1], decode)}"
        )
    if decode is not None:
        first = max(0, place - _AROUND)
        text += (
            f"; {_shown(ours[first : place + _AROUND], decode)} where the teacher read "
            f"{_shown(theirs[first : place + _AROUND], decode)}"
        )
    return text + _cause(ours, theirs)


def _shown(ids: NDArray[np.int64], decode: Decode) -> str:
    if decode is None:
        return f"id {ids[0]}" if len(ids) == 1 else str(ids.tolist())
    text = repr(decode(ids.tolist()))
    return f"{text} (id {ids[0]})" if len(ids) == 1 else text


def _cause(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> str:
    """What probably made it so."""
    for longer, shorter, what in ((ours, theirs, "more"), (theirs, ours, "less")):
        count = len(longer) - len(shorter)
        if count > 0 and len(shorter) and np.array_equal(longer[count:], shorter):
            return f": {_tokens(count)} {what} at the beginning, as a special token (BOS) or another cut"
        if count > 0 and len(shorter) and np.array_equal(longer[:-count], shorter):
            return f": {_tokens(count)} {what} at the end, as padding or another cut"
    if len(ours) == len(theirs) > 1:
        if np.array_equal(ours[1:], theirs[:-1]) or np.array_equal(ours[:-1], theirs[1:]):
            return ": they are shifted by one"
        if np.array_equal(np.sort(ours), np.sort(theirs)):
            return ": they are in another order"
    return ""


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


def decoder_of(tokenizer: Any) -> Decode:
    """Token ids → text by a tokenizer; None without one."""
    return None if tokenizer is None else lambda ids: str(tokenizer.decode(ids))
