"""What checksums cost an epoch of reading: lazily checked, the first time and later, against not at all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.caches import checked, published
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.reading import BATCH
from benchmarks.timing import compare, timed
from decant.cache import LogitCache, Verify


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 13: a line for the first epoch and one for the later ones."""
    samples, classes = conditions.choose((200_000, 1_000), (20_000, 100))
    path = published(conditions, samples, classes)
    batches = np.array_split(conditions.random().permutation(samples), samples // BATCH)
    unchecked, seen = LogitCache.open(path, verify="off"), checked(path)

    def epoch(cache: LogitCache) -> None:
        for rows in batches:
            cache.logits(rows)

    def first_epoch(verify: Verify = "lazy") -> None:
        epoch(LogitCache.open(path, verify=verify))

    what = f"epoch of random batches, {samples:,} × {classes:,} float16, lazily checked"
    for name, checking, target in (
        ("the first", first_epoch, None),
        ("later", lambda: epoch(seen), 0.95),
    ):
        yield compare(
            13, f"{what}, {name}", timed(checking), "the same, `--verify=off`", timed(lambda: epoch(unchecked)),
            unit=Unit.RATE, target=target, repetitions=conditions.choose(9, 3),
        )  # fmt: skip
