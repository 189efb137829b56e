"""Phase one of a teacher behind a server: who it is, and its pass over the tokens of one part of a recipe's texts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from decant.cache import Head, LogitCache, LogitCacheWriter, MismatchError, expected_size
from decant.pipeline.language.building import Window, shared, windows_of
from decant.pipeline.language.served_pass import ServedPass
from decant.pipeline.phases.cost import Estimate
from decant.pipeline.phases.language.served_teacher import read_note, require_key, write_note
from decant.pipeline.phases.language.teacher_pass import TokensPass, say_if_useless, tokens_per_batch
from decant.pipeline.phases.verify import Comparison
from decant.pipeline.served.connection import Connection, UnreachableError
from decant.pipeline.served.sameness import APART
from decant.pipeline.served.server import Model, describe, require_fitting
from decant.pipeline.support.notices import say_once

if TYPE_CHECKING:
    from decant.pipeline.phases.language.plan import LanguagePlan


def identify(plan: LanguagePlan) -> None:
    """Asks the server of a plan which model it has, and notes that. A cache that is whole is compared with what it
    says; where it cannot be reached, that cache is taken, which is said.

    Raises ServerError and ModelError; MismatchError where it says other things than the cache holds; DataError without
    its key.
    """
    path = _noted_cache(plan)
    with _connected(plan, patience=None if path is None else 0.0) as connection:
        try:
            model = _described(plan, connection)
        except UnreachableError as error:
            if path is None:
                raise
            say_once(f"{error}; {path} is whole, and taken without asking")
            return
        write_note(plan.teacher_folder, model.identity)
        path = plan.store.find(plan.served_manifest(model.identity))
        if path is not None:
            _pass(plan, connection, model).require_same(LogitCache.open(path))


class ServedTokensPass:
    """See `phases.passes.TeacherPass`. The server is asked when rows are missing."""

    head: Head | None = None

    def __init__(self, plan: LanguagePlan) -> None:
        self._plan = plan
        self.positions = plan.positions
        say_if_useless(plan, plan.served_encoding)

    def units(self, writer: LogitCacheWriter, processes: int) -> Sequence[Window]:
        """Windows, and then their batches."""
        return shared(self._windows(writer), processes)

    def part(self, writer: LogitCacheWriter, number: int, of: int) -> Sequence[Window]:
        """The units of a part, which follow each other."""
        return TokensPass.part_of(TokensPass.units_of(self._windows(writer), of), number, of)

    def _windows(self, writer: LogitCacheWriter) -> list[Window]:
        return windows_of(self._plan.samples, tokens_per_batch(self._plan), writer)

    def fill(
        self,
        writer: LogitCacheWriter,
        device: torch.device,
        units: Iterable[Window] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> int:
        """Asks for the rows of units that are missing, and returns how many positions they are of. Raises MismatchError
        where the server says that it has another model than the file is of.
        """
        if writer.is_written().all():
            return 0
        with _connected(self._plan) as connection:
            model = _described(self._plan, connection)
            if self._plan.served_manifest(model.identity).key != writer.manifest.key:
                raise MismatchError(
                    f"{connection.url}: has another model now, {connection.words(model.name)}, than when it was asked "
                    "whose rows these are; run the same command again"
                )
            run = _pass(self._plan, connection, model)
            run.begin()
            return run.fill(writer, units, advance)

    def require_unchanged(self) -> None:
        """Nothing to ask: the tokens are a file of its own, and the server was compared with itself all along."""


def estimate(plan: LanguagePlan) -> Estimate:
    """What the server's pass over the part of a plan would cost, by a few samples that it is asked for. Writes
    nothing.
    """
    counts, student = plan.samples.num_positions, plan.settings.student
    assert plan.server is not None
    timed = 2 * plan.server.concurrency
    chosen = np.unique(np.linspace(0, len(counts) - 1, timed).astype(np.int64))
    with _connected(plan) as connection:
        model = _described(plan, connection)
        manifest = plan.served_manifest(model.identity)
        run = _pass(plan, connection, model)
        run.begin()
        started = time.perf_counter()
        run.ask(chosen.tolist())
        seconds = (time.perf_counter() - started) / int(counts[chosen].sum()) * int(counts.sum())
    published = plan.store.find(manifest)
    return Estimate(
        path=published or plan.store.path(manifest),
        exists=published is not None,
        bytes=expected_size(manifest),
        views_taken_over=0,
        seconds=seconds,
        live_seconds_an_epoch=seconds,
        student_epochs=student.epochs * student.seeds,
    )


def compare(plan: LanguagePlan, cache: LogitCache, chosen: Iterable[int]) -> Comparison:
    """What the server says of some samples against what a cache holds, in nats."""
    with _connected(plan) as connection:
        run = _pass(plan, connection, _described(plan, connection))
        rows, apart = run.compare(cache, chosen)
    return Comparison(cache.path, rows, apart, 0.0, cache.manifest.encoding.name, APART)


@contextlib.contextmanager
def _connected(plan: LanguagePlan, patience: float | None = None) -> Iterator[Connection]:
    server = plan.server
    assert server is not None, "a teacher behind a server has one"
    require_key(server)
    with contextlib.closing(Connection(server, patience)) as connection:
        yield connection


def _described(plan: LanguagePlan, connection: Connection) -> Model:
    """What the server says of the model; it reads what the samples are. Raises ServerError and ModelError."""
    assert plan.server is not None
    model = describe(connection, plan.server.model)
    connection.patience = plan.server.patience
    samples = plan.samples
    require_fitting(model, connection.url, int(samples.lengths.max()), samples.corpus.num_ids)
    return model


def _pass(plan: LanguagePlan, connection: Connection, model: Model) -> ServedPass:
    assert plan.server is not None
    return ServedPass(
        plan.server,
        connection,
        model,
        plan.samples,
        plan.served_encoding,
        plan.data.num_outputs,
        tokens_per_batch(plan),
        show_progress=True,
    )


def _noted_cache(plan: LanguagePlan) -> Path | None:
    """The cache of the model that was noted before; None without either."""
    noted = read_note(plan.teacher_folder)
    return None if noted is None else plan.store.find(plan.served_manifest(noted))
