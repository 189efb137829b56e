"""Rows of a cache whose samples have several each, in words: for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from decant.cache import LogitCache, PositionProfile, ShownRow
from decant.pipeline.support.terminal import printable

PLACE_COLUMNS: Sequence[str] = (
    "position",
    "rows",
    "entropy, nats",
    "top-1 probability",
    "not stored",
    "certain rows",
)
ROW_COLUMNS: Sequence[str] = ("token", "is", "next", "its probability", "the likeliest", "not stored")
_LONGEST_TEXT = 40  # characters of a token

Decode = Callable[[list[int]], str]
"""Token ids → text."""


def lengths_in_words(cache: LogitCache) -> str:
    """How many positions samples have.

    `"3 to 512 a sample, 104.2 on average; 18,756 of 180 samples"`, for instance.
    """
    lengths = cache.lengths
    return (
        f"{lengths.min():,} to {lengths.max():,} a sample, {lengths.mean():,.1f} on average; "
        f"{cache.num_positions:,} of {cache.num_samples:,} samples"
    )


def by_place(profile: PositionProfile) -> list[list[str]]:
    """Means of the rows of each place, in the order of PLACE_COLUMNS."""
    facts, rows = profile.facts, []
    for first, last, which in profile.by_place():
        means = [float(column[which].mean()) for column in (facts.entropy, facts.confidence, facts.tail)]
        certain = float(profile.certain_rows[which].mean())
        place = f"{first:,}" if first == last else f"{first:,}–{last:,}"
        rows.append(
            [
                place,
                f"{which.sum():,}",
                f"{means[0]:.3f}",
                f"{means[1]:.4f}",
                f"{means[2]:.4f}",
                f"{certain:.3f}",
            ]
        )
    return rows


def row_cells(row: ShownRow, decode: Decode | None = None) -> list[str]:
    """A row as text: token, what it is, what follows, how likely that was, the likeliest, what is not stored."""
    probability = "–" if row.next_log_prob is None else f"{np.exp(row.next_log_prob):.4f}"
    likeliest = ", ".join(f"{_text(output, decode)} ({share:.3f})" for output, share in row.likeliest)
    return [
        f"{row.place:,}",
        _text(row.token, decode),
        _text(row.next_token, decode),
        probability,
        likeliest,
        f"{row.tail:.4f}",
    ]


def _text(token: int | None, decode: Decode | None) -> str:
    if token is None:
        return "–"
    if decode is None:
        return str(token)
    text = printable(repr(decode([token])))
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
