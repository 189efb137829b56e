"""What checksums cost an epoch of reading: lazily checked, the first time and later, against not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cache import LogitCache
from cache.reader import Verify
from tests.bench.reading import BATCH, write_cache
from tests.bench.timing import Measurement, compare


def measure(folder: Path, quick: bool) -> Iterator[Measurement]:
    """A row for the first epoch and one for the later ones."""
    samples, classes = (20_000, 100) if quick else (200_000, 1_000)
    path = write_cache(folder, samples, classes)
    batches = np.array_split(np.random.default_rng(0).permutation(samples), samples // BATCH)
    unchecked, seen = LogitCache.open(path, verify="off"), LogitCache.open(path)

    def epoch(cache: LogitCache) -> None:
        for rows in batches:
            cache.logits(rows)

    def first_epoch(verify: Verify = "lazy") -> None:
        epoch(LogitCache.open(path, verify=verify))

    epoch(seen)
    what = f"epoch of random batches, {samples:,} × {classes:,} float16"
    without = "the same, --verify=off"
    repetitions = 3 if quick else 9
    yield compare(
        f"{what}, lazily checked, the first",
        first_epoch,
        without,
        lambda: epoch(unchecked),
        target="",
        repetitions=repetitions,
    )
    yield compare(
        f"{what}, lazily checked, later",
        lambda: epoch(seen),
        without,
        lambda: epoch(unchecked),
        target="≥ 0.95",
        repetitions=repetitions,
    )
    path.unlink()
