"""What each row of a cache says of its teacher's softmax at T = 1: how sure it is, how spread, what it leaves out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Sparse, SparseRows
from decant.cache.reader import LogitCache

_LOGITS = 1 << 24  # that are decoded at once


class RowFacts(NamedTuple):
    """Of Q rows, at T = 1."""

    top: NDArray[np.integer]
    """(Q,) the likeliest output; of draws, of those that are stored."""
    confidence: NDArray[np.floating]
    """(Q,) its probability."""
    tail: NDArray[np.floating]
    """(Q,) the mass of the outputs that are not stored; 0 where all are."""
    entropy: NDArray[np.floating]
    """(Q,) nats. What is not stored counts as one output, so that it is at least so much; of draws it is an unbiased
    estimate.
    """
    certain: NDArray[np.integer] | None = None
    """(Q,) how many of the stored outputs are no draw; None where nothing is drawn."""


def row_facts(cache: LogitCache, samples: NDArray[np.intp], view: int) -> RowFacts:
    """Of all rows of samples (B,), those of one after those of another. Raises CorruptError."""
    encoding = cache.encoding
    if isinstance(encoding, Sparse):
        return _of_sparse(cache.rows(samples, view), encoding)
    encoded = cache.encoded(samples, view)
    count, step = len(next(iter(encoded.values()))), max(1, _LOGITS // cache.num_outputs)
    parts = []
    for first in range(0, max(count, 1), step):
        some = {name: column[first : first + step] for name, column in encoded.items()}
        parts.append(_of_logits(encoding.decode(some, cache.num_outputs).astype("f4")))
    tops, confidences, entropies = (np.concatenate(column) for column in zip(*parts, strict=True))
    return RowFacts(tops, confidences, np.zeros(count, "f4"), entropies)


def _of_sparse(rows: SparseRows, encoding: Sparse) -> RowFacts:
    best = rows.log_probs.argmax(axis=1)[:, None]
    log_tail = rows.log_tail[:, encoding.temperatures.index(1.0)].astype("f8")
    estimates = np.exp(encoding.log_estimates(rows))
    entropy = -(estimates * encoding.log_shares(rows)).sum(axis=1)
    tail = np.exp(log_tail)
    if rows.certain is None:
        entropy -= np.where(tail > 0, tail * np.maximum(log_tail, np.finfo("f8").min), 0)
    return RowFacts(
        np.take_along_axis(rows.ids, best, 1)[:, 0],
        np.exp(np.take_along_axis(rows.log_probs, best, 1)[:, 0]),
        np.exp(rows.log_tail[:, encoding.temperatures.index(1.0)]),
        entropy,
        rows.certain,
    )


def _of_logits(
    logits: NDArray[np.floating],
) -> tuple[NDArray[np.integer], NDArray[np.floating], NDArray[np.floating]]:
    """(q,) each: the likeliest output, its probability, and the entropy."""
    top = logits.argmax(axis=1)
    centred = logits - np.take_along_axis(logits, top[:, None], 1)
    exps = np.exp(centred)
    mass = exps.sum(axis=1)
    return top, 1 / mass, np.log(mass) - np.einsum("qc,qc->q", exps, centred) / mass
