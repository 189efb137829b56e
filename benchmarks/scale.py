"""How time grows with the number of samples: it should not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.caches import checked, labels_of, published
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.reading import gather, random_batches
from benchmarks.timing import Timed, medians, timed
from decant.cache import LogitCache, SoftLabelDataset

CLASSES = 10


@dataclass(frozen=True)
class _Indices:
    """A map-style dataset that costs nothing: input and label are functions of the index."""

    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        return index, int(labels_of(index))


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 10, a line for each size: gathers, opening, and a dataset's start."""
    sizes = conditions.choose([10**4, 10**5, 10**6, 10**7], [10**4, 10**5])
    paths = {size: published(conditions, size, CLASSES) for size in sizes}
    repetitions = conditions.choose(25, 3)
    yield from _gathers(conditions, paths, repetitions)
    opened = [timed(lambda path=path: LogitCache.open(path), 5) for path in paths.values()]
    yield from _each("`LogitCache.open`", paths, opened, 50, repetitions)
    started = [timed(lambda size=size, path=path: _last(size, path), 5) for size, path in paths.items()]
    yield from _each("open, `SoftLabelDataset`, its last sample", paths, started, None, repetitions)


def _gathers(conditions: Conditions, paths: Mapping[int, Path], repetitions: int) -> Iterator[Measurement]:
    """Against that of the smallest cache; an array in memory is slower too once it outgrows the processor's cache."""
    things = []
    for size, path in paths.items():
        cache, batches = checked(path), random_batches(conditions, size)
        held = cache.logits(slice(None))
        things.append(timed(gather(cache, batches), 400))
        things.append(timed(lambda held=held, batches=batches: held.take(next(batches), axis=0), 400))
    found = medians(*things, repetitions=repetitions)
    smallest, *mapped = found[::2]
    smallest_array, *arrays = found[1::2]
    first, *sizes = paths
    for size, seconds, array in zip(sizes, mapped, arrays, strict=True):
        yield Measurement(
            10, f"gather of 256 rows × {CLASSES} float16, N = {size:,}", f"N = {first:,}",
            seconds / smallest, Unit.TIME, 1.15, note=f"an array in memory {array / smallest_array:.2f} ×",
            details={"seconds": seconds, "against_seconds": smallest, "array_seconds": array,
                     "against_array_seconds": smallest_array, "repetitions": repetitions},
        )  # fmt: skip


def _last(size: int, path: Path) -> object:
    return SoftLabelDataset(_Indices(size), LogitCache.open(path), check_inputs="off")[size - 1]


def _each(
    what: str, sizes: Iterable[int], things: list[Timed], target: float | None, repetitions: int
) -> Iterator[Measurement]:
    for size, seconds in zip(sizes, medians(*things, repetitions=repetitions), strict=True):
        yield Measurement(
            10, f"{what}, N = {size:,}", "", seconds * 1_000, Unit.MILLISECONDS, target,
            details={"seconds": seconds, "repetitions": repetitions},
        )  # fmt: skip
