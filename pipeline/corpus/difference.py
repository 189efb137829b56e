"""Which token of two rows is the first that differs, shown as text, and what probably made it so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Decode = Callable[[list[int]], str] | None
_AROUND = 5  # tokens shown on each side


def difference(
    ours: NDArray[np.int64],
    theirs: NDArray[np.int64],
    decode: Decode,
    here: str = "the batch",
    reader: str = "the teacher",
) -> str:
    """The first difference of two rows of tokens in words, with what explains it. They must differ.

    >>> difference(np.array([5, 7]), np.array([5, 8]), None)
    'token 1 is id 7 in the batch, and the teacher read id 8'
    """
    shared = min(len(ours), len(theirs))
    different = np.flatnonzero(ours[:shared] != theirs[:shared])
    place = int(different[0]) if len(different) else shared
    if place == shared:
        text = f"{here} has {len(ours):,} tokens of it, and {reader} read {len(theirs):,}"
    else:
        text = (
            f"token {place:,} is {_shown(ours[place : place + 1], decode)} in {here}, and {reader} read "
            f"{_shown(theirs[place : place + 1], decode)}"
        )
    if decode is not None:
        first = max(0, place - _AROUND)
        text += (
            f"; {_shown(ours[first : place + _AROUND], decode)} where {reader} read "
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
