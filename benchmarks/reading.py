"""Random batches of 256 rows from a cache, against an array in memory and against h5py's own indexing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import h5py
import numpy as np

from benchmarks.caches import checked, published
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import compare, timed
from decant.cache import LogitCache

BATCH = 256
SHAPES = [(200_000, 1_000), (1_000_000, 100)]
QUICK_SHAPES = [(20_000, 100)]

Batches = Iterator[np.ndarray]


def against_memory(conditions: Conditions) -> Iterator[Measurement]:
    """Row 1, a line for each shape."""
    for cache, what, batches in _caches(conditions):
        held = cache.logits(slice(None))

        def in_memory(held: np.ndarray = held, batches: Batches = batches) -> object:
            return held.take(next(batches), axis=0)

        yield compare(
            1, what, timed(gather(cache, batches), 400),
            "the same gather from an array in memory", timed(in_memory, 400),
            unit=Unit.RATE, target=0.9, repetitions=conditions.choose(25, 3),
        )  # fmt: skip


def against_h5py(conditions: Conditions) -> Iterator[Measurement]:
    """Row 2, a line for each shape."""
    for cache, what, batches in _caches(conditions):
        with h5py.File(cache.path) as file:
            table = file["logits"]

            def by_h5py(table: h5py.Dataset = table, batches: Batches = batches) -> object:
                rows, inverse = np.unique(next(batches), return_inverse=True)
                return table[0, rows][inverse]

            yield compare(
                2, what, timed(gather(cache, batches), 50),
                "h5py, the same rows sorted, then put back in order", timed(by_h5py, 3),
                unit=Unit.RATE, target=20, repetitions=conditions.choose(25, 3),
            )  # fmt: skip


def gather(cache: LogitCache, batches: Batches) -> Callable[[], object]:
    """Reads the next batch."""
    return lambda: cache.logits(next(batches))


def random_batches(conditions: Conditions, samples: int) -> Batches:
    """Of BATCH rows, without end."""
    random = conditions.random()
    return itertools.cycle([random.integers(0, samples, BATCH) for _ in range(500)])


def described(samples: int, classes: int) -> str:
    """How the table names the reading of a cache."""
    return f"`cache.logits(random {BATCH})`, {samples:,} × {classes:,} float16"


def _caches(conditions: Conditions) -> Iterator[tuple[LogitCache, str, Batches]]:
    for samples, classes in conditions.choose(SHAPES, QUICK_SHAPES):
        cache = checked(published(conditions, samples, classes))
        yield cache, described(samples, classes), random_batches(conditions, samples)
