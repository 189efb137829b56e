"""Views of a batch, made by one core."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.conditions import Conditions
from benchmarks.images import viewed
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import measure, timed

BATCH = 256


def batch(conditions: Conditions) -> Iterator[Measurement]:
    """Row 12: other samples and other views at every call."""
    data, random = viewed(conditions, conditions.choose(50_000, 5_000)), conditions.random()
    keys = itertools.cycle(
        [
            np.stack([random.integers(0, len(data), BATCH), random.integers(0, 100, BATCH)], axis=1)
            for _ in range(200)
        ]
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield measure(
            12, f"{BATCH} CIFAR-sized pad-crop-flip views from an array, one core",
            timed(lambda: data.batch(next(keys)), 100),
            unit=Unit.MILLISECONDS, target=1, repetitions=conditions.choose(25, 3),
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
