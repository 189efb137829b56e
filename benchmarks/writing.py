"""A cache written from its first row to its published name, against as many bytes written and synced."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator

import numpy as np

from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import compare, timed
from decant.cache import CacheWarning, LogitCacheWriter, Manifest

_BATCH = 4096


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 25."""
    samples, classes = conditions.choose((100_000, 1_000), (10_000, 100))
    conditions.require_space(4 * samples * classes)
    random = conditions.random()
    logits = random.standard_normal((samples, classes), dtype="f4").astype("f2")
    labels = random.integers(0, classes, samples)
    numbers, manifest = itertools.count(), Manifest.build(num_samples=samples, num_outputs=classes)

    def written() -> None:
        path = conditions.folder / f"written-{next(numbers)}.h5"
        with LogitCacheWriter(path, manifest) as writer, warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)  # random logits
            for first in range(0, samples, _BATCH):
                some = slice(first, first + _BATCH)
                writer.write(np.arange(samples)[some], logits[some], labels=labels[some])
            writer.publish()
        path.unlink()

    def plain() -> None:
        path = conditions.folder / f"plain-{next(numbers)}"
        with path.open("wb", buffering=0) as file:
            for first in range(0, samples, _BATCH):
                file.write(logits[first : first + _BATCH].data)
            os.fsync(file.fileno())
        path.unlink()

    yield compare(
        25, f"`LogitCacheWriter`, {samples:,} × {classes:,} float16 in batches of {_BATCH:,}, to the published file",
        timed(written), "plain write and fsync of the same bytes", timed(plain),
        unit=Unit.TIME, target=1.5, repetitions=conditions.choose(9, 3),
    )  # fmt: skip
