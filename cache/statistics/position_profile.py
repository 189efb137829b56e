"""How what a teacher says changes along its samples, and some samples row by row: for people who look at a cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Sparse
from decant.cache.reader import LogitCache
from decant.cache.statistics.positions import some_samples
from decant.cache.statistics.row_facts import RowFacts, row_facts

_CERTAIN = 0.99


class PositionProfile(NamedTuple):
    """Facts of R positions, and of their places in their samples."""

    places: NDArray[np.int64]
    """(R,) 0 for the first position of a sample."""
    facts: RowFacts
    """(R,) each."""

    def by_place(self) -> list[tuple[int, int, NDArray[np.bool_]]]:
        """(first, last, (R,) which rows) of places whose number doubles: 0, 1, 2–3, 4–7, …; those that there are."""
        most = int(self.places.max(initial=0))
        groups, first = [], 0
        while first <= most:
            last = max(first, 2 * first - 1)
            which = (self.places >= first) & (self.places <= last)
            if which.any():
                groups.append((first, min(last, most), which))
            first = last + 1
        return groups

    @property
    def certain_rows(self) -> NDArray[np.bool_]:
        """(R,) whether the likeliest output of a row has a probability of 0.99 or more."""
        return self.facts.confidence >= _CERTAIN


def profile_positions(cache: LogitCache, limit: int | None = 20_000) -> PositionProfile:
    """Facts of all positions of a cache, or of about `limit`, of samples at even distances. Raises CorruptError.

    >>> import tempfile
    >>> from decant.cache import LogitCacheWriter, Manifest, Positions
    >>> folder = tempfile.TemporaryDirectory()
    >>> positions = Positions.of([3], predicts="here")
    >>> of = Manifest.build(num_samples=1, num_outputs=2, positions=positions)
    >>> with LogitCacheWriter(f"{folder.name}/toy.h5", of, positions=positions) as writer:
    ...     writer.write([0], [[0.0, 9.0], [9.0, 0.0], [0.0, 0.0]])
    ...     found = profile_positions(LogitCache.open(writer.publish()))
    >>> found.places.tolist(), found.facts.entropy.astype("f8").round(2).tolist(), found.certain_rows.tolist()
    ([0, 1, 2], [0.0, 0.0, 0.69], [True, True, False])
    >>> folder.cleanup()
    """
    places, parts = [], []
    for view, samples in some_samples(cache, limit):
        parts.append(row_facts(cache, samples, view))
        counts = cache.lengths[samples]
        places.append(np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))
    certain = [part.certain for part in parts if part.certain is not None]
    columns = [np.concatenate(column) for column in zip(*(part[:4] for part in parts), strict=True)]
    facts = RowFacts(*columns)
    return PositionProfile(
        np.concatenate(places), facts._replace(certain=np.concatenate(certain)) if certain else facts
    )


class ShownRow(NamedTuple):
    """One position of a sample, for a person to read."""

    place: int
    """At which token of its sample it is."""
    token: int | None
    """What the teacher read there; None where the cache does not say."""
    next_token: int | None
    """What follows; None where nothing does, or the cache does not say or predict it."""
    next_log_prob: float | None
    """Its log-probability, where it is known."""
    likeliest: tuple[tuple[int, float], ...]
    """(output, probability at T = 1) of the likeliest, of draws of those that are stored."""
    tail: float
    """The mass of the outputs that are not stored."""


def sample_rows(
    cache: LogitCache, sample: int, view: int = 0, likeliest: int = 5, limit: int | None = None
) -> list[ShownRow]:
    """The rows of a sample, or the first `limit` of them. Raises IndexError for a sample or view that there is not,
    TypeError for a cache whose samples are one row each, and CorruptError.

    >>> import tempfile
    >>> from decant.cache import LogitCacheWriter, Manifest, Positions
    >>> folder = tempfile.TemporaryDirectory()
    >>> positions = Positions.of([2], tokens=[0, 1], predicts="next")
    >>> of = Manifest.build(num_samples=1, num_outputs=3, positions=positions)
    >>> with LogitCacheWriter(f"{folder.name}/toy.h5", of, positions=positions) as writer:
    ...     writer.write([0], [[0.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    ...     row, last = sample_rows(LogitCache.open(writer.publish()), 0, likeliest=1)
    >>> row.token, row.next_token, round(row.next_log_prob, 4), last.next_token
    (0, 1, -0.0002, None)
    >>> folder.cleanup()
    """
    if not cache.has_positions:
        raise TypeError(f"{cache.path}: a sample is one row: read `logits`")
    index = range(cache.num_samples)[sample]
    one = np.array([index])
    ids, probabilities, tails = _likeliest(cache, one, view, likeliest, limit)
    places = cache.places(one)
    tokens = _tokens(cache, one)
    following = None if cache.positions is None else _following(cache, one)
    is_next = cache.manifest.identity["positions"]["predicts"] == "next"
    next_log_prob = cache.next_log_prob(one, view) if is_next else np.full(len(places), np.nan)
    return [
        ShownRow(
            int(places[row]),
            None if tokens is None else int(tokens[places[row]]),
            None if following is None or following[row] < 0 else int(following[row]),
            None if np.isnan(next_log_prob[row]) else float(next_log_prob[row]),
            tuple(zip(ids[row].tolist(), probabilities[row].tolist(), strict=True)),
            float(tails[row]),
        )
        for row in range(len(ids))
    ]


def _tokens(cache: LogitCache, one: NDArray[np.int64]) -> NDArray[np.int64] | None:
    try:
        return cache.tokens(one)[0]
    except TypeError:
        return None


def _following(cache: LogitCache, one: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """(Q,) the token after each position, −1 where there is none; None where tokens are not stored or not predicted."""
    positions = cache.positions
    predicts = cache.manifest.identity["positions"]["predicts"]
    if positions is None or positions.tokens is None or predicts != "next":
        return None
    return positions.next_tokens(one)


def _likeliest(
    cache: LogitCache, one: NDArray[np.int64], view: int, count: int, limit: int | None
) -> tuple[NDArray[np.integer], NDArray[np.floating], NDArray[np.floating]]:
    """(q, count), (q, count) and (q,): the likeliest outputs, their probabilities, and the mass that is not stored."""
    encoding, some = cache.encoding, slice(0, limit)
    if isinstance(encoding, Sparse):
        rows = cache.rows(one, view)
        ids, log_probs = rows.ids[some], rows.log_probs[some]
        tails = np.exp(rows.log_tail[some, encoding.temperatures.index(1.0)])
    else:
        encoded = {name: column[some] for name, column in cache.encoded(one, view).items()}
        logits = encoding.decode(encoded, cache.num_outputs).astype("f8")
        most = logits.max(axis=1, keepdims=True, initial=-np.inf)
        log_probs = logits - most - np.log(np.exp(logits - most).sum(axis=1, keepdims=True))
        ids = np.broadcast_to(np.arange(cache.num_outputs), log_probs.shape)
        tails = np.zeros(len(log_probs))
    order = np.argsort(-log_probs, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(ids, order, 1), np.exp(np.take_along_axis(log_probs, order, 1)), tails
