"""Statistics of caches whose samples have several positions each, and what is likely wrong with their rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Sparse
from decant.cache.reader import LogitCache

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
        limit = min(
            limit, max(_ENOUGH, 4 * _LOGITS // cache.num_outputs)
        )  # logits of so many outputs take time
    rows, known, right, following = 0, 0, 0, 0
    positions = cache.positions
    log_prob = confidence = tail = 0.0
    has_next = cache.manifest.identity["positions"]["predicts"] == "next"
    for view, samples in _some_samples(cache, limit):
        top, largest, outside = _heads(cache, samples, view)
        rows, confidence, tail = (
            rows + len(top),
            confidence + float(largest.sum()),
            tail + float(outside.sum()),
        )
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
    )


def doubts_of_positions(cache: LogitCache) -> list[str]:
    """What is likely wrong with the rows of a cache, from about 4,096 positions: at most one thing."""
    if cache.manifest.identity["positions"]["predicts"] != "next":
        return []
    found = [cache.next_log_prob(samples, view) for view, samples in _some_samples(cache, _ROWS)]
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


def _heads(
    cache: LogitCache, samples: NDArray[np.intp], view: int
) -> tuple[NDArray[np.integer], NDArray[np.floating], NDArray[np.floating]]:
    """(Q,) each: the likeliest output of each position, its probability, and the mass of what is not stored."""
    encoding = cache.encoding
    if isinstance(encoding, Sparse):
        rows = cache.rows(samples, view)
        best = rows.log_probs.argmax(axis=1)[:, None]
        at_1 = rows.log_tail[:, encoding.temperatures.index(1.0)]
        return (
            np.take_along_axis(rows.ids, best, 1)[:, 0],
            np.exp(np.take_along_axis(rows.log_probs, best, 1)[:, 0]),
            np.exp(at_1),
        )
    encoded, tops, shares = cache.encoded(samples, view), [], []
    count = len(next(iter(encoded.values())))
    step = max(1, _LOGITS // cache.num_outputs)
    for first in range(0, max(count, 1), step):
        some = {name: column[first : first + step] for name, column in encoded.items()}
        logits = encoding.decode(some, cache.num_outputs).astype("f4")
        top = logits.argmax(axis=1)
        most = np.take_along_axis(logits, top[:, None], 1)
        tops.append(top)
        shares.append(1 / np.exp(logits - most).sum(axis=1))
    return np.concatenate(tops), np.concatenate(shares), np.zeros(count, "f4")


def _some_samples(cache: LogitCache, limit: int | None) -> Iterator[tuple[int, NDArray[np.intp]]]:
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
