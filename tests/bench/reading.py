"""Random batches of 256 rows from a cache, against an array in memory and against h5py's own indexing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from cache import LogitCache, LogitCacheWriter, Manifest
from tests.bench.timing import Measurement, compare

BATCH = 256
SHAPES = {False: [(200_000, 1_000), (1_000_000, 100)], True: [(20_000, 100)]}


def measure(folder: Path, quick: bool) -> Iterator[Measurement]:
    """A row for each shape and rival."""
    for samples, classes in SHAPES[quick]:
        path = write_cache(folder, samples, classes)
        cache = LogitCache.open(path)
        held = cache.logits(slice(None))  # verifies every block and is the array in memory
        random = np.random.default_rng(0)
        batches = itertools.cycle([random.integers(0, samples, BATCH) for _ in range(500)])
        what = f"cache.logits(random {BATCH}), {samples:,} × {classes:,} float16"
        repetitions = 5 if quick else 25

        def mapped(cache: LogitCache = cache, batches: Iterator[np.ndarray] = batches) -> object:
            return cache.logits(next(batches))

        def in_memory(held: np.ndarray = held, batches: Iterator[np.ndarray] = batches) -> object:
            return held.take(next(batches), axis=0)

        yield compare(
            what, mapped, "the same gather from an array in memory", in_memory,
            target="≥ 0.9", repetitions=repetitions, inner=(400, 400),
        )  # fmt: skip
        with h5py.File(path) as file:
            yield compare(
                what, mapped, "h5py, the same rows sorted", _by_h5py(file, batches),
                target="≥ 20", repetitions=repetitions, inner=(50, 3),
            )  # fmt: skip
        path.unlink()


def _by_h5py(file: h5py.File, batches: Iterator[np.ndarray]) -> Callable[[], object]:
    table = file["logits"]

    def read() -> object:
        rows, inverse = np.unique(next(batches), return_inverse=True)
        return table[0, rows][inverse]

    return read


def write_cache(folder: Path, samples: int, classes: int) -> Path:
    """A published cache of random logits."""
    manifest = Manifest.build(num_samples=samples, num_outputs=classes, data={"name": "bench"})
    random = np.random.default_rng(1)
    with LogitCacheWriter(folder / f"{samples}x{classes}.h5", manifest) as writer:
        for first in range(0, samples, 10_000):
            indices = np.arange(first, min(samples, first + 10_000))
            writer.write(indices, random.standard_normal((len(indices), classes), dtype=np.float32))
        return writer.publish()
