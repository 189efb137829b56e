"""The rows of a cache that are missing, computed by a teacher and written.

Loading, computing and writing overlap: a thread or worker processes prefetch the next batches, and another thread
waits for a batch's logits and writes them, at most a few batches behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCacheWriter, Manifest, rows_per_block
from decant.pipeline.training.background import BackgroundWriter, prefetch
from decant.pipeline.training.handout import MissingBatch, MissingOfRuns, Run, Units
from decant.pipeline.training.loading import BatchedData, Keys, loader


class Rows(NamedTuple):
    """What is written of a batch."""

    outputs: NDArray[Any] | Mapping[str, NDArray[Any]]
    """(B, C), raw outputs on the host; or rows (B, …) of the cache's tables, encoded already."""
    labels: NDArray[Any]
    """(B,) int64, or (B, T) float32."""
    input_crc32: NDArray[np.uint32]
    """(B,)."""


Answer: TypeAlias = Callable[[Keys, Any], Callable[[], Rows]]
"""(keys of a batch, what the data made of them) → a function that waits for the teacher's answer and returns it, called
in another thread. The teacher is called before this one returns.
"""


def units_of(manifest: Manifest, batch_size: int, processes: int = 1) -> Units:
    """How the rows of a cache are handed out to so many processes."""
    return Units(manifest.num_views, manifest.num_samples, rows_per_block(manifest), batch_size, processes)


def written_rows(writer: LogitCacheWriter) -> list[NDArray[np.bool_]]:
    """(N,) for each view: which rows are stored."""
    return [writer.is_written(view) for view in range(writer.manifest.num_views)]


def write_missing_rows(
    writer: LogitCacheWriter,
    runs: Iterable[Run],
    data: BatchedData,
    answer: Answer,
    batch_size: int,
    advance: Callable[[int], object],
    *,
    workers: int = 0,
    pin_memory: bool = False,
    ahead: bool = True,
    at_once: int = 1,
    prepare: Callable[[Any], Any] | None = None,
) -> int:
    """Computes and writes every missing row of the runs, and returns their number. Raises what the writer raises. What
    another job has written into the same file by the time that a batch is drawn is not computed again.

    advance: is called with the number of rows after each batch is written, in another thread, or found written.
    workers: processes that read the data; with none, the next batches are read in a thread where `ahead` says that the
    data allow it. at_once: the most batches of a view that are read, answered and written together. prepare: what is
    done to what the data made of a batch, in the thread that reads ahead.
    """

    def made_by_others(view: int, samples: NDArray[np.integer]) -> NDArray[np.bool_]:
        made = writer.in_file(samples, view)
        if made.any():
            advance(int(made.sum()))
        return made

    keys, computed = MissingOfRuns(runs, written_rows(writer), batch_size, made_by_others, at_once), 0

    def store(batch: MissingBatch, wait: Callable[[], Rows]) -> None:
        rows, wanted = wait(), batch.wanted
        indices, view = batch.keys[wanted, 0], int(batch.keys[0, 1])
        beside = {"labels": rows.labels[wanted], "input_crc32": rows.input_crc32[wanted]}
        if isinstance(rows.outputs, Mapping):
            encoded = {name: column[wanted] for name, column in rows.outputs.items()}
            writer.write_encoded(indices, encoded, **beside, view=view)
        else:
            writer.write(indices, rows.outputs[wanted], **beside, view=view)
        advance(int(wanted.sum()))

    batches: Iterable[Any] = loader(data, keys, workers, pin_memory)
    if prepare is not None:
        batches = map(prepare, batches)
    with BackgroundWriter() as write_later:
        for made in prefetch(batches) if ahead and not (workers and prepare is None) else batches:
            batch = keys.taken.popleft()
            write_later(store, batch, answer(batch.keys, made))
            computed += int(batch.wanted.sum())
    return computed
