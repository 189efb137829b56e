"""Random batches of 256 rows from a cache, against the two ways in which soft labels are often kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from benchmarks.caches import checked, published
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.reading import Batches, described, gather, random_batches
from benchmarks.timing import compare, timed
from decant.cache import LogitCache


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 3: one file a sample, and fixed records of one file."""
    samples, classes = conditions.choose((200_000, 1_000), (20_000, 100))
    cache = checked(published(conditions, samples, classes))
    mapped = timed(gather(cache, random_batches(conditions, samples)), 400)
    what, repetitions = described(samples, classes), conditions.choose(15, 3)
    kept = conditions.choose(20_000, 1_000)
    folder = _one_file_a_sample(conditions, cache, kept)
    yield compare(
        3, what, mapped,
        f"a `torch.save` file a sample, of {kept:,} (torchdistill, FKD)",
        timed(_load_each(folder, random_batches(conditions, kept))),
        unit=Unit.RATE, target=100, repetitions=repetitions,
    )  # fmt: skip
    records = _records(conditions, cache)
    with open(records, "rb") as file:
        yield compare(
            3, what, mapped,
            "seek and read of fixed records in one file (TinyViT)",
            timed(_read_each(file, classes, random_batches(conditions, samples)), 5),
            unit=Unit.RATE, target=5, repetitions=repetitions,
        )  # fmt: skip


def _one_file_a_sample(conditions: Conditions, cache: LogitCache, count: int) -> Path:
    """The first rows, a tensor (C,) float16 each, 1,000 files a folder."""
    conditions.require_space(count * (2 * cache.num_classes + 4_096))
    folder = conditions.folder / "one-file-a-sample"
    for start in range(0, count, 1_000):
        (folder / str(start // 1_000)).mkdir(parents=True)
        rows = torch.from_numpy(cache.logits(slice(start, min(count, start + 1_000))))
        for index, row in enumerate(rows, start):
            torch.save(row.clone(), _path(folder, index))
    return folder


def _path(folder: Path, index: int) -> Path:
    return folder / str(index // 1_000) / f"{index}.pt"


def _load_each(folder: Path, batches: Batches) -> Callable[[], object]:
    def read() -> object:
        return torch.stack([torch.load(_path(folder, index)) for index in next(batches).tolist()])

    return read


def _records(conditions: Conditions, cache: LogitCache) -> Path:
    """All rows one after the other, without a header."""
    conditions.require_space(cache.num_samples * cache.num_classes * 2)
    path = conditions.folder / "records.bin"
    cache.logits(slice(None)).tofile(path)
    return path


def _read_each(file: BinaryIO, classes: int, batches: Batches) -> Callable[[], object]:
    size = 2 * classes

    def one(index: int) -> np.ndarray:
        file.seek(size * index)
        return np.frombuffer(file.read(size), np.float16)

    return lambda: np.stack([one(index) for index in next(batches).tolist()])
