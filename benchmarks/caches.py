"""Caches of random logits, largest at the label, to read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.conditions import Conditions
from decant.cache import LogitCache, LogitCacheWriter, Manifest, expected_size

_AT_ONCE = 10_000


def published(conditions: Conditions, samples: int, classes: int) -> Path:
    """A float16 cache of one view with labels, written at the first call; the same 10,000 rows again and again."""
    path = conditions.folder / f"{samples}x{classes}.h5"
    if not path.exists():
        _write(conditions, path, samples, classes)
    return path


def checked(path: Path) -> LogitCache:
    """Opened, with every block's checksum checked already."""
    cache = LogitCache.open(path)
    problems = cache.verify()
    assert not problems, problems
    return cache


def _write(conditions: Conditions, path: Path, samples: int, classes: int) -> None:
    manifest = Manifest.build(num_samples=samples, num_outputs=classes, data={"name": "bench"})
    conditions.require_space(expected_size(manifest))
    logits = conditions.random().standard_normal((_AT_ONCE, classes), dtype=np.float32).astype(np.float16)
    logits[np.arange(_AT_ONCE), labels_of(np.arange(_AT_ONCE))] += (
        5  # or it would be doubted that a teacher gave them
    )
    with LogitCacheWriter(path, manifest) as writer:
        for first in range(0, samples, _AT_ONCE):
            indices = np.arange(first, min(samples, first + _AT_ONCE))
            writer.write(indices, logits[: len(indices)], labels=labels_of(indices))
        writer.publish()


def labels_of(indices: np.ndarray) -> np.ndarray:
    """(B,) of the samples of every cache here."""
    return indices % 10
