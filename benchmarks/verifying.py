"""What checksums cost: an epoch of reading, lazily checked or not at all, and a whole file, verified or only read."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from benchmarks.caches import checked, published
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.reading import BATCH
from benchmarks.timing import compare, timed
from decant.cache import LogitCache, Verify


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 13: a line for the first epoch, of a file that is opened for it, checked or not, and so mapped anew; one
    against an epoch of a file that is mapped already; and one for the later ones.
    """
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
    first, later = lambda: first_epoch("off"), lambda: epoch(unchecked)
    for name, checking, against, other, target in (
        (
            "the first",
            first_epoch,
            "the same of a file that is opened for it too, `--verify=off`",
            first,
            0.6,
        ),
        ("the first", first_epoch, "the same, `--verify=off`", later, None),
        ("later", lambda: epoch(seen), "the same, `--verify=off`", later, 0.95),
    ):
        yield compare(
            13, f"{what}, {name}", timed(checking), against, timed(other),
            unit=Unit.RATE, target=target, repetitions=conditions.choose(9, 3),
        )  # fmt: skip


def whole_file(conditions: Conditions) -> Iterator[Measurement]:
    """Row 26. The file is read once before, so that it comes from memory where there is room for it."""
    samples, classes = conditions.choose((5_000_000, 1_000), (50_000, 100))
    path = published(conditions, samples, classes)
    buffer = bytearray(1 << 17)

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def verified() -> None:
        assert LogitCache.open(path).verify() == []

    yield compare(
        26, f"`cache verify` of {os.stat(path).st_size / 1e9:.0f} GB in memory", timed(verified),
        "reading it once, as `cat` does", timed(read),
        unit=Unit.RATE, target=0.9, repetitions=conditions.choose(5, 2),
    )  # fmt: skip
