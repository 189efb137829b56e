"""A DataLoader over a SoftLabelDataset, against one over the bare dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.conditions import Conditions
from benchmarks.images import labelled, viewed
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import compare, timed
from decant.pipeline.support.allocator import freed_memory_kept
from decant.pipeline.training.loading import BatchedData, ShuffledKeys, loader


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 4, a line for each number of workers. Freed memory is kept, as while a network trains: glibc gives it back in
    one process and keeps it in the next, and new pages for views then cost more than logits do.
    """
    bare = viewed(conditions, conditions.choose(50_000, 5_000))
    with_logits = labelled(conditions, bare)
    for workers in (0, 2):
        with freed_memory_kept():
            found = compare(
                4, f"epoch over `SoftLabelDataset`, CIFAR-sized views, {workers} workers",
                timed(_epoch(conditions, with_logits, workers)),
                "epoch over the bare dataset", timed(_epoch(conditions, bare, workers)),
                unit=Unit.RATE, target=0.97, repetitions=conditions.choose(9, 2),
            )  # fmt: skip
        yield found


def _epoch(conditions: Conditions, data: BatchedData, workers: int) -> Callable[[], object]:
    batches = loader(data, ShuffledKeys(len(data), 256, conditions.seed), workers)

    def run() -> object:
        for batch in batches:
            last = batch
        return last

    return run
