"""Statistics of caches whose samples have several positions each, and what is likely wrong with their rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Sparse
from decant.cache.reader import LogitCache
from decant.cache.statistics.row_facts import row_facts

_LOGITS = 1 << 24  # that are decoded at once
_ROWS = 4096  # positions that are looked at before a cache is doubted
_ENOUGH = 200  # positions, below which nothing is said about a teacher's answers


class PositionSummary(NamedTuple):
    """Statistics of the rows of positions; None where nothing is known."""

    rows: int
    """The number of positions that were read, of all views."""
    next_log_prob: float | None
    """Mean log-probability, in nats, of the tokens that follow; e to the power of minus it is the perplexity."""
    top1: float | None
    """How often the token that follows is the teacher's first choice."""
    confidence: float
    """Mean largest probability, at T = 1."""
    tail: float
    """Mean mass that the stored outputs leave out, at T = 1; 0 where all are stored."""
    known: float | None = None
    """Of how many of the tokens that follow the log-probability is there: rows of other programs may have that of the
    likeliest alone. None where the cache does not say which tokens follow.
    """
    entropy: float = 0.0
    """Mean entropy in nats, at T = 1; what is not stored counts as one output."""


def summarize_positions(cache: LogitCache, limit: int | None = None) -> PositionSummary:
    """Statistics of all positions of a cache, or of about `limit` of samples at even distances. Raises CorruptError.

    >>> import tempfile
    >>> from decant.cache import LogitCacheWriter, Manifest, Positions
    >>> folder = tempfile.TemporaryDirectory()
    >>> positions = Positions.of([3], tokens=[0, 1, 1], predicts="next")
    >>> of = Manifest.build(num_samples=1, num_outputs=2, positions=positions)
    >>> with LogitCacheWriter(f"{folder.name}/toy.h5", of, positions=positions) as writer:
    ...     writer.write([0], [[0.0, 9.0], [9.0, 0.0], [0.0, 0.0]])
    ...     found = summarize_positions(LogitCache.open(writer.publish()))
    >>> found.rows, round(found.next_log_prob, 2), found.top1
    (3, -4.5, 0.5)
    >>> folder.cleanup()
    """
    if limit is not None and not isinstance(cache.manifest.encoding, Sparse):
        # Logits of so many outputs take time.
        limit = min(limit, max(_ENOUGH, 4 * _LOGITS // cache.num_outputs))
    rows, known, right, following = 0, 0, 0, 0
    positions = cache.positions
    log_prob = confidence = tail = entropy = 0.0
    has_next = cache.manifest.identity["positions"]["predicts"] == "next"
    for view, samples in some_samples(cache, limit):
        facts = row_facts(cache, samples, view)
        largest, rows = facts.confidence, rows + len(facts.top)
        confidence += float(facts.confidence.sum())
        tail += float(facts.tail.sum())
        entropy += float(facts.entropy.sum())
        if has_next:
            found = cache.next_log_prob(samples, view).astype("f8")
            there = ~np.isnan(found)
            if positions is not None and positions.tokens is not None:
                following += int((positions.next_tokens(samples) >= 0).sum())
            known, log_prob = known + int(there.sum()), log_prob + float(found[there].sum())
            # A token is the first choice where nothing is likelier; float16 has rounded what is stored of it.
            room = 2**-10 * np.abs(found[there]) + 2**-10
            right += int((found[there] >= np.log(largest[there]) - room).sum())
    return PositionSummary(
        rows=rows,
        next_log_prob=log_prob / known if known else None,
        top1=right / known if known else None,
        confidence=confidence / max(rows, 1),
        tail=tail / max(rows, 1),
        known=known / following if following else None,
        entropy=entropy / max(rows, 1),
    )


def doubts_of_positions(cache: LogitCache) -> list[str]:
    """What is likely wrong with the rows of a cache, from about 4,096 positions: at most one thing."""
    if cache.manifest.identity["positions"]["predicts"] != "next":
        return []
    found = [cache.next_log_prob(samples, view) for view, samples in some_samples(cache, _ROWS)]
    known = np.concatenate(found) if found else np.empty(0, "f4")
    known = known[~np.isnan(known)]
    chance = -math.log(cache.num_outputs)
    if len(known) < _ENOUGH or cache.num_outputs < 2 or known.mean(dtype="f8") > chance:
        return []
    return [
        f"the mean log-probability of the next token is {known.mean(dtype='f8'):.2f} nats on {len(known):,} positions, "
        f"and a guess among {cache.num_outputs:,} has {chance:.2f}: likely causes are rows that are shifted by one "
        "position, tokens of another tokenizer or of other samples, or a teacher that was never trained"
    ]


def some_samples(cache: LogitCache, limit: int | None) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(view, samples) that have about `limit` positions together, at even distances; a few samples at a time."""
    total = cache.num_views * cache.num_samples
    share = 1.0 if limit is None else limit / (cache.num_views * cache.num_positions)
    count = min(total, max(1, math.ceil(total * share)))
    chosen = np.linspace(0, total - 1, count).astype(np.intp)
    per_sample = max(1, cache.num_positions // cache.num_samples)
    step = max(1, _ROWS // per_sample)
    views, samples = np.divmod(chosen, cache.num_samples)
    for view in range(cache.num_views):
        here = samples[views == view]
        for first in range(0, len(here), step):
            yield view, here[first : first + step]
