"""Classes with different numbers of samples: how many, what each sample then counts, and how often it is drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.data.samples import NO_LABEL


def class_counts(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """(C,) how many samples have each label; those without one are left out.

    >>> class_counts(np.array([0, 0, 2, -1]), 3).tolist()
    [2, 0, 1]
    """
    return np.bincount(labels[labels != NO_LABEL], minlength=num_classes).astype(np.int64)


def balanced_weights(labels: NDArray[np.integer], num_classes: int) -> tuple[float, ...]:
    """N / (C · n) of each class with n of the N samples that have a label, C being the classes that have any: a mean
    of 1 over the samples. A class without samples counts as the rarest.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 2)
    (0.6666666666666666, 2.0)
    """
    counts = class_counts(labels, num_classes)
    present = counts[counts > 0]
    least = int(present.min()) if len(present) else 1
    each = counts.sum() / (max(len(present), 1) * np.where(counts > 0, counts, least))
    return tuple(each.tolist())


def drawing_shares(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.float64]:
    """(N,) how often each sample is drawn, summing to 1: every class as often as any other that has samples; samples
    without a label as often as they are.

    >>> drawing_shares(np.array([0, 0, 0, 1]), 2).round(3).tolist()
    [0.167, 0.167, 0.167, 0.5]
    """
    weights = np.array(balanced_weights(labels, num_classes))
    shares = np.where(labels == NO_LABEL, 1.0, weights[np.maximum(labels, 0)])
    return np.asarray(shares / shares.sum())
