"""Statistics of the outputs in a cache, with NumPy alone: accuracy, calibration and entropy of soft labels, scores of
sigmoids, errors of a regression.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.reader import LogitCache
from decant.cache.source import row_chunks
from decant.cache.statistics.positions import PositionSummary, summarize_positions
from decant.cache.statistics.sigmoids import SigmoidScores, sigmoid_scores


class Summary(NamedTuple):
    """Statistics of soft labels over the rows of all views; shares are in 0..1, None where there is no label."""

    rows: int
    """The number of rows that were read."""
    top1: float | None
    calibration_error: float | None
    confidence: float
    """Mean largest probability, at T = 1."""
    entropy: float
    """Mean of −Σ p·log p in nats, at T = 1."""


class RegressionSummary(NamedTuple):
    """Statistics of a regression's outputs over the rows of all views; None where there is no target."""

    rows: int
    """The number of rows that were read."""
    mse: float | None
    mae: float | None
    r2: float | None


class SigmoidSummary(NamedTuple):
    """Statistics of outputs that have a sigmoid each, over the rows of all views; None where there is no label."""

    rows: int
    """The number of rows that were read."""
    scores: SigmoidScores | None
    likely: float
    """The mean number of outputs of a row whose probability is above 0.5."""


class Errors(NamedTuple):
    """Errors of outputs over all targets that are not NaN."""

    mse: float
    """Mean squared error."""
    mae: float
    """Mean absolute error."""
    r2: float | None
    """1 − Σ (ŷ − y)² / Σ (y − ȳ)² of a target, averaged over the targets that vary; None where none does."""


_MOST_SCORES = 50_000_000
"""Logits of sigmoids that are held in memory at once: to rank them all are needed."""


def summarize(
    cache: LogitCache, limit: int | None = None
) -> Summary | RegressionSummary | SigmoidSummary | PositionSummary:
    """Statistics of all rows of a cache, or of `limit` rows at even distances through the file; of sigmoids at most
    50 million logits are read. Raises CorruptError.

    >>> import tempfile
    >>> from decant.cache import Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> logits, labels = np.float32([[9, 0], [9, 0]]), np.array([0, 1])
    >>> cache = LogitCache.open(import_logits(Store(folder.name), logits, labels, teacher={}, data={"name": "toy"}))
    >>> found = summarize(cache)
    >>> found.rows, found.top1, round(found.confidence, 3)
    (2, 0.5, 1.0)
    >>> folder.cleanup()
    """
    if cache.has_positions:
        return summarize_positions(cache, limit)
    total, sigmoids = cache.num_views * cache.num_samples, _has_sigmoids(cache)
    if sigmoids:
        limit = min(total if limit is None else limit, max(1, _MOST_SCORES // cache.num_outputs))
    chosen = (
        np.arange(total)
        if limit is None or limit >= total
        else np.linspace(0, total - 1, limit).astype(np.intp)
    )
    if sigmoids:
        return _summarize_sigmoids(cache, chosen)
    if cache.manifest.num_targets is not None:
        return _summarize_regression(cache, chosen)
    right, confidence, entropy = [], [], []
    for places in row_chunks(len(chosen)):
        views, rows = np.divmod(chosen[places], cache.num_samples)
        probabilities = softmax(cache.logits(rows, views).astype(np.float32))
        confidence.append(probabilities.max(1))
        entropy.append(-np.sum(probabilities * np.log(np.maximum(probabilities, 1e-30)), axis=1))
        labels = cache.labels[rows]
        answers = (probabilities.argmax(1) == labels).astype(np.float64)
        right.append(np.where(labels >= 0, answers, np.nan))
    sure, answers = np.concatenate(confidence), np.concatenate(right)
    labelled = ~np.isnan(answers)
    known = bool(labelled.any())
    return Summary(
        rows=len(chosen),
        top1=float(answers[labelled].mean()) if known else None,
        calibration_error=calibration_error(sure[labelled], answers[labelled]) if known else None,
        confidence=float(sure.mean(dtype=np.float64)),
        entropy=float(np.concatenate(entropy).mean(dtype=np.float64)),
    )


def _has_sigmoids(cache: LogitCache) -> bool:
    """Whether each output is of a sigmoid: as the manifest says, or because one output has labels of two classes."""
    one = cache.num_outputs == 1 and cache.manifest.num_targets is None
    return cache.manifest.has_sigmoids or (one and int(cache.labels.max()) == 1)


def _summarize_sigmoids(cache: LogitCache, chosen: NDArray[np.intp]) -> SigmoidSummary:
    views, rows = np.divmod(chosen, cache.num_samples)
    logits = np.concatenate([cache.logits(rows[at], views[at]) for at in row_chunks(len(chosen))])
    labels = cache.labels[rows]
    if labels.ndim == 1:  # 0 and 1 as class numbers
        labels = np.where(labels < 0, np.nan, labels)[:, None]
    scores = sigmoid_scores(logits.astype(np.float32), labels)
    return SigmoidSummary(len(chosen), scores, float((logits > 0).sum(axis=1).mean()))


def _summarize_regression(cache: LogitCache, chosen: NDArray[np.intp]) -> RegressionSummary:
    if cache.manifest.num_targets != cache.num_outputs:  # outputs that are not of the targets, one by one
        return RegressionSummary(len(chosen), None, None, None)
    pairs = (np.divmod(chosen[places], cache.num_samples) for places in row_chunks(len(chosen)))
    errors = regression_errors((cache.logits(rows, views), cache.labels[rows]) for views, rows in pairs)
    return RegressionSummary(len(chosen), *(errors or (None, None, None)))


def regression_errors(chunks: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> Errors | None:
    """Errors over chunks of (outputs, targets), both (B, T); NaN targets do not count. None where no target counts.

    >>> regression_errors([(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]))])
    Errors(mse=0.5, mae=0.5, r2=-1.0)
    """
    count = squared = absolute = mean = spread = np.zeros(())  # each is (T,) after the first chunk
    for outputs, targets in chunks:
        known = ~np.isnan(targets)
        values = np.where(known, targets, 0).astype(np.float64)
        difference = np.where(known, outputs.astype(np.float64) - values, 0)
        squared = squared + np.square(difference).sum(axis=0)
        absolute = absolute + np.abs(difference).sum(axis=0)
        here = known.sum(axis=0)
        total = np.maximum(count + here, 1)
        own = values.sum(axis=0) / np.maximum(here, 1)
        spread = spread + (np.square(values - own) * known).sum(axis=0)
        spread = spread + np.square(own - mean) * count * here / total
        mean = mean + (own - mean) * here / total
        count = count + here
    if not np.sum(count):
        return None
    varying = spread > 0
    r2 = float((1 - squared[varying] / spread[varying]).mean()) if np.any(varying) else None
    return Errors(float(np.sum(squared) / np.sum(count)), float(np.sum(absolute) / np.sum(count)), r2)


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.floating]:
    """exp(z/T) / Σ exp(z/T) along the last axis, in the dtype of `logits`; does not overflow.

    >>> softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: NDArray[np.floating] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.floating], bins: int = 15) -> float:
    """Expected calibration error: |accuracy − confidence| over equal bins of confidence, weighted by their
    size.

    confidence (N,) in 0..1, right (N,) 0 or 1; NaN where any confidence is NaN. Guo, Pleiss, Sun, Weinberger, "On
    Calibration of Modern Neural Networks" (2017), equation 3.

    >>> round(calibration_error(np.array([0.9, 0.9]), np.array([1.0, 0.0])), 3)
    0.4
    """
    if np.isnan(confidence).any():
        return math.nan
    place = np.clip(np.ceil(confidence * bins).astype(np.intp), 1, bins) - 1
    gaps = np.bincount(place, weights=right - confidence.astype(np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
