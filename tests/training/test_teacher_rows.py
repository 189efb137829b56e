"""The rows that a process computes: what is missing when a batch is drawn, whoever has written the others."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.cache import LogitCache, LogitCacheWriter, Manifest, Sparse
from decant.pipeline.training import teacher_rows
from decant.pipeline.training.handout import (
    MissingOfRuns,
    Run,
    Units,
    divided_at_the_end,
    handed_out,
    part,
    parts_of,
)
from decant.pipeline.training.loading import Keys
from decant.pipeline.training.teacher_rows import Rows, write_missing_rows
from tests.helpers.caches import answers, holds_the_answers, manifest, write
from tests.helpers.processes import wait_until

OF = manifest(100, num_views=1)  # four blocks


class Echo:
    """A dataset whose batches are their keys."""

    def __len__(self) -> int:
        return 100

    def batch(self, keys: Keys) -> tuple[Any, ...]:
        return (keys,)


def test_what_another_job_has_finished_meanwhile_is_not_computed_again(tmp_path: Path) -> None:
    """Two jobs at once on one cache, each of which began when nothing was there."""
    computed, counted = [], []
    path = tmp_path / "cache.h5"
    with LogitCacheWriter.join(path, OF) as one, LogitCacheWriter.join(path, OF) as two:

        def answer(keys: Keys, made: Any) -> Callable[[], Rows]:
            if not computed:
                write(two, 0, range(64, 96))
            computed.append(keys[:, 0].tolist())
            said = {name: column[keys[:, 0]] for name, column in answers(OF).items()}
            return lambda: Rows(said["logits"], said["labels"], said["input_crc32"])

        found = write_missing_rows(
            one, [Run(0, 0, 100)], Echo(), answer, batch_size=10, advance=counted.append, ahead=False
        )
        two.close()
        one.publish()
    assert [first for first, *_ in computed] == [*range(0, 70, 10), 90], "64 to 95 were there"
    assert found == 100 - 32, "of a batch that both have, what is missing"
    assert sum(counted) == 100, "what the other has made counts for the bar"
    assert holds_the_answers(LogitCache.open(path))


def test_of_rows_that_a_gpu_has_encoded_those_are_written_that_are_missing(tmp_path: Path) -> None:
    logits, encoding = np.random.default_rng(0).normal(size=(20, 5)).astype("f4"), Sparse(head=2)
    of = Manifest.build(num_samples=20, num_outputs=5, encoding=encoding)
    crc32 = np.arange(1, 21, dtype=np.uint32)

    def answer(keys: Keys, made: Any) -> Callable[[], Rows]:
        rows = keys[:, 0]
        return lambda: Rows(encoding.encode(logits[rows], rows, 0), rows % 5, crc32[rows])

    contents = []
    for there in ([], [3, 4, 5, 12]):
        with LogitCacheWriter(tmp_path / f"{len(there)}.h5", of) as writer:
            rows = np.array(there, np.int64)
            writer.write(rows, logits[rows], labels=rows % 5, input_crc32=crc32[rows])
            found = write_missing_rows(
                writer, [Run(0, 0, 20)], Echo(), answer, batch_size=10, advance=lambda rows: None
            )
            assert found == 20 - len(there)
            contents.append(writer.publish().read_bytes())
    assert contents[0] == contents[1]


def test_rows_that_are_written_together_are_those_that_are_written_batch_by_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two views, some of whose rows are there: the same file, in fewer calls, none over the end of a view."""
    of, calls, contents = manifest(100, num_views=2), list[tuple[int, int]](), list[bytes]()
    write_rows = LogitCacheWriter.write

    def counted(writer: LogitCacheWriter, indices: Any, *given: Any, **named: Any) -> None:
        calls.append((named["view"], len(indices)))
        write_rows(writer, indices, *given, **named)

    def answer(keys: Keys, made: Any) -> Callable[[], Rows]:
        said = {name: column[keys[:, 0]] for name, column in answers(of, int(keys[0, 1])).items()}
        return lambda: Rows(said["logits"], said["labels"], said["input_crc32"])

    for together in (1, 4):
        advanced = list[int]()
        with LogitCacheWriter(tmp_path / f"{together}.h5", of) as writer:
            write(writer, 0, [3, 17])
            monkeypatch.setattr(LogitCacheWriter, "write", counted)
            runs = [Run(0, 0, 100), Run(1, 0, 100)]
            found = write_missing_rows(
                writer, runs, Echo(), answer, batch_size=10, advance=advanced.append, together=together
            )
            monkeypatch.undo()
            assert found == sum(advanced) == 198
            contents.append(writer.publish().read_bytes())
    assert contents[0] == contents[1]
    assert calls[-6:] == [(0, 38), (0, 40), (0, 20), (1, 40), (1, 40), (1, 20)]
    assert len(calls) == 20 + 6


def test_rows_do_not_wait_long_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a teacher that takes long are written batch by batch: a kill loses little, and the bar moves."""
    monkeypatch.setattr(teacher_rows, "_LONGEST_SECONDS", 0.0)
    said, advanced = answers(OF), list[int]()

    def answer(keys: Keys, made: Any) -> Callable[[], Rows]:
        rows = keys[:, 0]
        return lambda: Rows(said["logits"][rows], said["labels"][rows], said["input_crc32"][rows])

    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write_missing_rows(
            writer, [Run(0, 0, 100)], Echo(), answer, batch_size=10, advance=advanced.append, together=100
        )
    assert advanced == [10] * 10


def test_rows_do_not_wait_while_a_slow_teacher_computes_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may take it a minute."""
    monkeypatch.setattr(teacher_rows, "_LONGEST_SECONDS", 0.02)
    said, advanced, written = answers(OF), list[int](), threading.Event()

    def advance(rows: int) -> None:
        advanced.append(rows)
        written.set()

    def answer(keys: Keys, made: Any) -> Callable[[], Rows]:
        rows = keys[:, 0]
        time.sleep(0.05)
        if rows[0] > 20:  # the first, which took what it took to begin, waits for the second
            while sum(advanced) < rows[0] and written.wait(10):
                written.clear()
            assert sum(advanced) == rows[0]
        return lambda: Rows(said["logits"][rows], said["labels"][rows], said["input_crc32"][rows])

    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write_missing_rows(
            writer, [Run(0, 0, 100)], Echo(), answer, batch_size=20, advance=advance, together=100
        )
    assert sum(advanced) == 100


def test_runs_that_are_handed_out_are_not_taken_far_ahead(tmp_path: Path) -> None:
    """Or a slow rank would hold what the others could compute."""
    said, taken, ahead = answers(OF), list[int](), list[int]()

    def handed_out() -> Iterator[Run]:
        for first in range(0, 100, 10):
            taken.append(first)
            yield Run(0, first, first + 10)

    def answer(keys: Keys, made: Any) -> Callable[[], Rows]:
        rows = keys[:, 0]
        if not ahead:
            wait_until(lambda: len(taken) >= 3)
            time.sleep(0.1)  # in which more would be taken
            ahead.append(len(taken))
        return lambda: Rows(said["logits"][rows], said["labels"][rows], said["input_crc32"][rows])

    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write_missing_rows(
            writer, handed_out(), Echo(), answer, batch_size=10, advance=lambda rows: None, together=10
        )
        writer.publish()
    assert ahead == [3], "the one that is computed, and two"


@pytest.mark.parametrize("speeds", [(1, 1), (1, 1, 1, 1), (2, 1), (2, 2, 2, 1), (1.1, 1, 0.9)], ids=str)
@pytest.mark.parametrize("samples", [20_000, 50_000])
def test_ranks_end_within_a_few_batches_of_each_other(speeds: tuple[float, ...], samples: int) -> None:
    """Of few rows, a block is a tenth of the pass: whoever took the last whole one would compute it alone."""
    batch, until = 256, [0.0] * len(speeds)
    units, numbers, rows = Units(1, samples, 2_048, batch, len(speeds)), itertools.count(1), list[int]()
    for run in handed_out(
        divided_at_the_end(units, len(speeds), units.batches), partial(next, numbers)
    ):  # by whoever is free first
        rank = int(np.argmin(until))
        until[rank] += (run.end - run.first) / speeds[rank]
        rows += range(run.first, run.end)
    assert rows == list(range(samples)), "each row once"
    assert max(until) <= samples / sum(speeds) + batch / min(speeds), f"{until}, of {samples} rows"


@pytest.mark.parametrize(("block_rows", "batch_size"), [(8, 12), (8, 32), (16, 5), (64, 64)])
@pytest.mark.parametrize("processes", [1, 3, 40])
def test_every_missing_row_is_computed_once_whoever_takes_which_units(
    block_rows: int, batch_size: int, processes: int
) -> None:
    """Each in the batch that it has in a pass of one process."""
    written = np.random.default_rng(0).random((2, 203)) < 0.3
    units = Units(*written.shape, block_rows, batch_size, processes)

    def computed(runs: Iterable[Run]) -> NDArray[np.int64]:
        found, keys = np.zeros(written.shape, np.int64), MissingOfRuns(runs, list(written), batch_size)
        for some in keys:
            chosen = some[keys.taken.popleft().wanted]
            np.add.at(found, (chosen[:, 1], chosen[:, 0]), 1)
            assert some[:, 0].tolist() == list(range(some[0, 0], min(203, some[0, 0] + batch_size)))
            assert some[0, 0] % batch_size == 0
        return found

    for of in (1, 2, 7, len(units) + 1):
        parts = [computed(part(units, number, of)) for number in range(of)]
        assert np.array_equal(sum(parts), ~written)
        assert parts_of(units, ~written, of) == [number for number in range(of) if parts[number].any()]
    assert np.array_equal(computed(divided_at_the_end(units, processes, units.batches)), ~written)


def test_units_are_batches_only_where_whole_blocks_are_few_for_so_many_processes() -> None:
    given = (
        (1, 50, 32, 10, 1),
        (1, 50, 32, 10, 2),
        (2, 100, 32, 10, 2),
        (1, 50, 8, 12, 8),
        (1, 203, 8, 32, 1),
    )
    assert [Units(*each).rows for each in given] == [32, 10, 32, 8, 32]
