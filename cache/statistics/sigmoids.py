"""Statistics of outputs that have a sigmoid each, with NumPy alone: average precision, area under the ROC curve, F1,
accuracy at a probability of 0.5.

Outputs are raw logits (N, C), labels (N, C) floats: 0, 1, or NaN for an unknown one, which does not count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SigmoidScores(NamedTuple):
    """How good outputs of sigmoids are, shares in 0..1; None where labels do not tell."""

    mean_average_precision: float | None
    """The mean over the classes that have a sample (macro)."""
    auc: float | None
    """The area under the ROC curve, the mean over the classes that have samples with and without them."""
    f1_micro: float
    """F1 of all entries together, where a logit above 0 says that the class is there."""
    f1_macro: float
    """The mean of each class's F1, of those with a known label; 0 for one that is neither there nor predicted."""
    exact_match: float
    """The share of samples all of whose known entries are right; of one output the accuracy."""


def sigmoid_scores(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> SigmoidScores | None:
    """The scores of logits (N, C) for labels (N, C); None where no label is known.

    >>> sigmoid_scores(np.array([[2.0], [-1.0], [0.5]]), np.array([[1.0], [0.0], [0.0]])).exact_match
    0.6666666666666666
    """
    known = ~np.isnan(labels)
    if not known.any():
        return None
    said, true = (logits > 0) & known, (labels == 1) & known
    counts = np.stack([(said & true).sum(0), said.sum(0), true.sum(0)], axis=1)
    labelled = known.any(axis=1)
    columns = [(logits[rows, k], labels[rows, k] == 1) for k, rows in enumerate(known.T)]
    return SigmoidScores(
        mean_average_precision=_mean([average_precision(*column) for column in columns]),
        auc=_mean([roc_auc(*column) for column in columns]),
        f1_micro=_f1(*counts.sum(axis=0)),
        f1_macro=float(np.mean([_f1(*column) for column in counts[known.any(axis=0)]])),
        exact_match=float((said == true).all(axis=1)[labelled].mean()),
    )


def average_precision(scores: NDArray[np.floating], there: NDArray[np.bool_]) -> float | None:
    """Σ (Rₙ − Rₙ₋₁)·Pₙ over the thresholds that tell scores (N,) apart, as scikit-learn's: equal scores are one
    threshold. None where nothing is there; NaN where a score is.

    >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))
    0.8333333333333333
    """
    if not there.any():
        return None
    if np.isnan(scores).any():
        return math.nan
    hits, count = _by_threshold(scores, there)
    steps = np.diff(hits, prepend=0) / hits[-1]
    return float((steps * hits / count).sum())


def roc_auc(scores: NDArray[np.floating], there: NDArray[np.bool_]) -> float | None:
    """The chance that a score of what is there is above one of what is not, equal scores counting half. None where
    either is missing; NaN where a score is.

    >>> roc_auc(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))
    0.5
    """
    if there.all() or not there.any():
        return None
    if np.isnan(scores).any():
        return math.nan
    hits, count = _by_threshold(scores, there)
    misses = count - hits
    new, heights = np.diff(misses, prepend=0), hits - np.diff(hits, prepend=0) / 2
    return float((new * heights).sum() / (hits[-1] * misses[-1]))


def _by_threshold(
    scores: NDArray[np.floating], there: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the scores at or above each threshold, from the highest down: how many are there, and how many there are."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    last = np.append(np.flatnonzero(sorted_scores[1:] != sorted_scores[:-1]), len(scores) - 1)
    return np.cumsum(there[order])[last].astype(np.float64), last + 1.0


def _f1(hits: np.integer, said: np.integer, true: np.integer) -> float:
    """F1 of a class, from three counts of samples: hits (true positives), said to have it, and truly having it. 0 where
    nobody says so and none has it.
    """
    return float(2 * hits / (said + true)) if said + true else 0.0


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
