"""What the soft labels of a cache are like: how right, how sure and how spread the teacher is, in NumPy
alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.chunks import row_chunks
from cache.reader import LogitCache


class Summary(NamedTuple):
    """Of the rows of a cache, all views together; shares are in 0..1, None where no label tells."""

    rows: int
    """How many were read."""
    top1: float | None
    calibration_error: float | None
    confidence: float
    """Mean largest probability, at T = 1."""
    entropy: float
    """Mean of −Σ p·log p in nats, at T = 1."""


def summarize(cache: LogitCache, limit: int | None = None) -> Summary:
    """Reads every row, or `limit` of them at even distances through the file. Raises CorruptError."""
    total = cache.num_views * cache.num_samples
    chosen = (
        np.arange(total)
        if limit is None or limit >= total
        else np.linspace(0, total - 1, limit).astype(np.intp)
    )
    right, confidence, entropy = [], [], []
    for places in row_chunks(len(chosen)):
        views, rows = np.divmod(chosen[places], cache.num_samples)
        probabilities = softmax(cache.logits(rows, views).astype(np.float32))
        confidence.append(probabilities.max(1))
        entropy.append(-np.sum(probabilities * np.log(np.maximum(probabilities, 1e-30)), axis=1))
        if cache.manifest.num_targets is None:
            labels = cache.labels[rows]
            answers = (probabilities.argmax(1) == labels).astype(np.float64)
            right.append(np.where(labels >= 0, answers, np.nan))
    sure = np.concatenate(confidence)
    answers = np.concatenate(right) if right else np.full(len(sure), np.nan)
    labelled = ~np.isnan(answers)
    known = bool(labelled.any())
    return Summary(
        rows=len(chosen),
        top1=float(answers[labelled].mean()) if known else None,
        calibration_error=calibration_error(sure[labelled], answers[labelled]) if known else None,
        confidence=float(sure.mean(dtype=np.float64)),
        entropy=float(np.concatenate(entropy).mean(dtype=np.float64)),
    )


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.floating]:
    """exp(z/T) / Σ exp(z/T) along the last axis, in the dtype of `logits`; safe for large ones."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: NDArray[np.floating] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.floating], bins: int = 15) -> float:
    """Expected calibration error: |accuracy − confidence| over equal bins of confidence, weighted by their
    size.

    confidence (N,) in 0..1, right (N,) 0 or 1. Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
    Networks" (2017), equation 3.
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.intp), 1, bins) - 1
    gaps = np.bincount(place, weights=right - confidence.astype(np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
