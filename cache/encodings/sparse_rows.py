"""Rows of a sparse encoding as numbers: the softmax that they tell, and what can be wrong with them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.log_sums import log_sum_exp


class SparseRows(NamedTuple):
    """What a sparse row says of a teacher's softmax: by falling probability, and then what was drawn, by number."""

    ids: NDArray[np.int32]
    """(B, k) outputs."""
    log_probs: NDArray[np.float32]
    """(B, k) log softmax of each, at T = 1."""
    log_tail: NDArray[np.float32]
    """(B, m) log of the mass of all other outputs at each declared temperature; −∞ where there are none."""
    log_sum_exp: NDArray[np.float32]
    """(B,) of the raw logits: log_probs + log_sum_exp are these."""
    certain: NDArray[np.int32] | None = None
    """(B,) how many of the k are no draw: the largest; None where nothing is drawn."""
    log_tau: NDArray[np.float32] | None = None
    """(B,) log τ: what is drawn was so with probability m/τ, m being its mean softmax over the declared temperatures.
    −∞ where all k are certain; None where nothing is drawn.
    """
    offsets: NDArray[np.int64] | None = None
    """(S + 1,) where the rows of each of S samples begin, if these have several positions; None where rows are
    samples."""


def log_shares(rows: SparseRows, temperature: float, log_tail: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, k) log softmax of the stored outputs where all others have a mass of e^log_tail (…,)."""
    tempered = rows.log_probs.astype("f8") / temperature
    return np.asarray(tempered - log_normaliser(tempered, log_tail)[..., None])


def log_normaliser(tempered: NDArray[np.float64], log_tail: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…,) log of what a softmax is normalised by, of which Σ e^(t/T) over the stored logits (…, k) / T is 1 − tail."""
    return np.asarray(log_sum_exp(tempered) - np.log1p(-np.exp(np.minimum(log_tail, -1e-12))))


def problems_of_rows(found: SparseRows, num_outputs: int) -> dict[str, NDArray[np.bool_]]:
    """What can be wrong with rows, and (B,) with which it is."""
    ordered = np.sort(found.ids, axis=1)
    falls = np.diff(found.log_probs, axis=1) <= 0
    if found.certain is not None:
        falls |= np.arange(1, found.ids.shape[1]) >= found.certain[:, None]
    return {
        "ids: one is no output": (found.ids >= num_outputs).any(axis=1),
        "ids: one is there twice": (ordered[:, 1:] == ordered[:, :-1]).any(axis=1),
        "log_probs: must be finite, 0 or below, and fall": ~(
            np.isfinite(found.log_probs).all(axis=1) & (found.log_probs <= 0).all(axis=1) & falls.all(axis=1)
        ),
        "stats: must be a finite log-sum-exp, and log masses of 0 or below": ~(
            np.isfinite(found.log_sum_exp) & (found.log_tail <= 0).all(axis=1)
        ),
    }


def problems_of_draws(found: SparseRows, head: int) -> dict[str, NDArray[np.bool_]]:
    """The same of what draws add."""
    if found.certain is None or found.log_tau is None:
        return {}
    places = found.ids.shape[1]
    drawn = np.arange(places) >= found.certain[:, None]
    between = drawn[:, :-1]  # both of a pair are drawn
    return {
        f"certain: must be {head} to {places}": (found.certain < head) | (found.certain > places),
        "ids: what is drawn must rise": (between & (np.diff(found.ids, axis=1) <= 0)).any(axis=1),
        "stats: log τ must be a number of 0 or below, and −∞ where nothing is drawn": ~(
            np.where(found.certain < places, np.isfinite(found.log_tau), found.log_tau == -np.inf)
            & (found.log_tau <= 0)
        ),
    }
