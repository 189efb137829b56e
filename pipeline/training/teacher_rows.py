"""The rows of a cache that are missing, computed by a teacher and written.

Loading, computing and writing overlap: a thread or worker processes prefetch the next batches, and another thread
waits for the logits of batches and writes them, at most a few writes behind. Small batches are written together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCacheWriter, Manifest, rows_per_block
from decant.pipeline.training.background import BackgroundWriter, prefetch
from decant.pipeline.training.handout import MissingBatch, MissingOfRuns, Run, Units
from decant.pipeline.training.loading import BatchedData, Keys, loader

_RUN = 4
"""Small batches that are read in a row."""
_LONGEST_SECONDS = 1.0
"""That computed rows wait for others which are written with them: a kill loses no more."""


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
    together: int = 1,
    prepare: Callable[[Any], Any] | None = None,
) -> int:
    """Computes and writes every missing row of the runs, and returns their number. Raises what the writer raises. What
    another job has written into the same file by the time that a batch is drawn is not computed again.

    advance: is called with the number of rows after they are written, in another thread, or found written.
    workers: processes that read the data; with none, the next batches are read in a thread where `ahead` says that the
    data allow it. at_once: the most batches of a view that are read, answered and written together. together: the most
    of these that are written in one call. prepare: what is done to what the data made of a batch, in the thread that
    reads ahead.
    """

    def made_by_others(view: int, samples: NDArray[np.integer]) -> NDArray[np.bool_]:
        made = writer.in_file(samples, view)
        if made.any():
            advance(int(made.sum()))
        return made

    keys, computed = MissingOfRuns(runs, written_rows(writer), batch_size, made_by_others, at_once), 0
    batches: Iterable[Any] = loader(data, keys, workers, pin_memory)
    if prepare is not None:
        batches = map(prepare, batches)
    with BackgroundWriter() as write_later:
        waiting = _Waiting(together)
        is_given = isinstance(runs, Sequence)  # what is handed out instead is not taken far ahead
        run = min(_RUN, together) if is_given else 1
        in_thread = ahead and not (workers and prepare is None)
        for made in prefetch(batches, 2 * run, run) if in_thread else batches:
            batch = keys.taken.popleft()
            if waiting.are_due(batch):
                write_later(_store, writer, waiting.taken(), advance)
            waiting.add(batch, answer(batch.keys, made))
            computed += int(batch.wanted.sum())
            if waiting.is_slow:
                write_later(_store, writer, waiting.taken(), advance)
        if waiting.answers:
            write_later(_store, writer, waiting.taken(), advance)
    return computed


_Answers: TypeAlias = "list[tuple[MissingBatch, Callable[[], Rows]]]"
"""Batches, and what waits for the rows of each."""


class _Waiting:
    """Batches that the teacher has been given, and whose rows are written together."""

    def __init__(self, most: int) -> None:
        self._most, self._since, self._last = most, 0.0, 0.0
        self.answers: _Answers = []
        self.is_slow = False
        """Whether the last one came so late after the one before that it is not to wait for another."""

    def add(self, batch: MissingBatch, wait: Callable[[], Rows]) -> None:
        now = time.monotonic()
        self.is_slow, self._last = 0 < self._last < now - _LONGEST_SECONDS, now
        if not self.answers:
            self._since = now
        self.answers.append((batch, wait))

    def are_due(self, following: MissingBatch) -> bool:
        """Whether they are to be written before another batch is computed."""
        if not self.answers:
            return False
        return (
            len(self.answers) >= self._most
            or self.answers[-1][0].keys[0, 1] != following.keys[0, 1]
            or time.monotonic() - self._since > _LONGEST_SECONDS
        )

    def taken(self) -> _Answers:
        """All of them; none waits afterwards."""
        taken, self.answers = self.answers, []
        return taken


def _store(writer: LogitCacheWriter, answers: _Answers, advance: Callable[[int], object]) -> None:
    """Writes the wanted rows of batches of one view."""
    keys = _joined([batch.keys[batch.wanted] for batch, _ in answers])
    found = [(wait(), batch.wanted) for batch, wait in answers]
    indices, view = keys[:, 0], int(answers[0][0].keys[0, 1])
    beside = {
        "labels": _joined([rows.labels[wanted] for rows, wanted in found]),
        "input_crc32": _joined([rows.input_crc32[wanted] for rows, wanted in found]),
    }
    outputs = [_picked(rows.outputs, wanted) for rows, wanted in found]
    if isinstance(outputs[0], dict):
        encoded = {name: _joined([some[name] for some in outputs]) for name in outputs[0]}
        writer.write_encoded(indices, encoded, **beside, view=view)
    else:
        writer.write(indices, _joined(outputs), **beside, view=view)
    advance(len(indices))


def _picked(outputs: NDArray[Any] | Mapping[str, NDArray[Any]], wanted: NDArray[np.bool_]) -> Any:
    """The rows that are wanted, of an array or of each of several."""
    if isinstance(outputs, Mapping):
        return {name: column[wanted] for name, column in outputs.items()}
    return outputs[wanted]


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
