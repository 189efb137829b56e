"""A teacher that is sure of its classes, labels of which some are wrong, and the cache of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, LogitCacheWriter
from tests.helpers.caches import manifest

CLASSES = 5


PLANTED = {11: 3, 41: 0, 77: 4, 122: 1}
"""Sample → the label that it is given; what it shows is the class `index % CLASSES`."""


UNSURE = 41
"""The one of them of which the teacher is less sure than of its class on the average."""


UNLABELLED = (2, 58)


def cache_of(
    path: Path,
    logits: NDArray[Any],
    labels: NDArray[Any],
    dtype: str = "float32",
    teacher: str = "0",
) -> LogitCache:
    """A published cache of logits (V, N, C)."""
    views, samples, outputs = logits.shape
    of = manifest(samples, outputs, views, dtype, teacher={"sha256": teacher})
    with LogitCacheWriter(path, of) as writer:
        for view in range(views):
            writer.write(np.arange(samples), logits[view], labels=labels, view=view)
        return LogitCache.open(writer.publish())


def answers(samples: int, views: int, seed: int = 0) -> NDArray[np.float64]:
    """Logits of a teacher that is sure of class `index % CLASSES`, more or less from view to view."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(views, samples, CLASSES))
    sure = 4 + random.random((views, samples))
    for index in PLANTED:
        sure[:, index : index + 1] = 2 if index == UNSURE else 9
    logits[:, np.arange(samples), np.arange(samples) % CLASSES] += sure
    return logits


def labels_of(samples: int) -> NDArray[np.int64]:
    labels = np.arange(samples) % CLASSES
    labels[list(PLANTED)] = list(PLANTED.values())
    labels[list(UNLABELLED)] = -1
    return labels
