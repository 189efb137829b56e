"""Phase one: teacher × data × views → cache file."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from decant.cache import (
    CacheError,
    CacheWarning,
    CorruptError,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    PositionSummary,
    RegressionSummary,
    SigmoidSummary,
    summarize,
    take_over_views,
)
from decant.pipeline.config.tasks import Metrics, score_metrics
from decant.pipeline.errors import ChangedError
from decant.pipeline.phases.kinds import RecipePlan
from decant.pipeline.phases.passes import TeacherPass, identify_teacher, pass_of
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.notes import Pass, remember_pass

_AT_CHANCE = (
    r".*: likely not a trained teacher's logits: "
    r"(top-1 is |class \d+ is the teacher's answer |the mean log-probability of the next token is )"
)
"""The warnings of `decant.cache` that say so."""
_MEASURED_ROWS = 100_000  # of a cache that was built before, for the teacher's metrics


@dataclass(frozen=True)
class Cached:
    """A published cache, and what it took to build."""

    cache: LogitCache
    metrics: Metrics
    """The teacher's, computed from the file over all views: top-1 and calibration error, the scores of sigmoids,
    the errors of a regression, or the perplexity of a language model.
    """
    seconds: float | None
    """None if the cache was built before."""
    rows: int
    """Rows that this call computed, of positions where samples have several; the others were copied, or computed by a
    call that was killed.
    """
    views_taken_over: int
    """Views that were copied from a cache that differs in the number of views alone."""
    measured: int
    """The number of rows that the metrics are of."""


def cache_logits(plan: RecipePlan, device: torch.device, waiting: Callable[[str], None]) -> Cached:
    """Runs the teacher once over every sample and view, and publishes its logits; finds the file if it exists.

    A pass that was killed goes on where it stopped, and ends in the same file. While another process builds the same
    cache, calls `waiting` once with its name, and waits. Raises NotMadeError if the teacher is not finished, and
    CacheError if the file cannot be written.
    """
    identify_teacher(plan)
    path = plan.find_cache()
    if path is None:
        with plan.store.building(plan.manifest, waiting) as target:
            path = plan.find_cache()  # another process may have built it while this one waited
            if path is None:
                started, run = time.perf_counter(), pass_of(plan)
                with LogitCacheWriter(
                    target, plan.manifest, positions=run.positions, head=run.head
                ) as writer:
                    taken_over = take_over_views(writer, plan.store)
                    with _dropping_changed(writer, ChangedError):
                        rows = run.fill(writer, device)
                    return publish(plan, writer, run, device, started, rows, taken_over)
    return measure_published(path)


@dataclass(frozen=True)
class RowsWritten:
    """Rows of a cache that others complete."""

    path: Path
    """Where the cache will lie."""
    rows: int
    """That this call computed."""
    missing: str
    """What is not written yet, in words."""


def cache_part(plan: RecipePlan, device: torch.device, part: tuple[int, int]) -> Cached | RowsWritten:
    """Computes part (i, n) of a cache, 0 ≤ i < n: of n equal runs of blocks the i-th. Publishes it where every other
    part is written, by whichever processes, in whatever order, at once or not, on all machines that see the store.

    All parts write one partial file, whose room is reserved once; of a store elsewhere it lies among the copies here,
    and the whole is published there. Raises as `cache_logits` does.
    """
    identify_teacher(plan)
    started, path = time.perf_counter(), plan.find_cache()
    if path is not None:
        return measure_published(path)
    run = pass_of(plan)
    try:
        with (
            plan.store.joining(plan.manifest) as target,
            LogitCacheWriter.join(target, plan.manifest, positions=run.positions, head=run.head) as writer,
        ):
            rows = run.fill(writer, device, run.part(writer, *part))
            try:
                return publish(plan, writer, run, device, started, rows)
            except IncompleteError as error:
                missing = str(error).partition(": ")[2]
    except CacheError:
        if plan.find_cache() is None:  # where another has published it in that moment, all is well
            raise
        rows, missing = 0, ""
    path = plan.find_cache()
    return RowsWritten(writer.path, rows, missing) if path is None else measure_published(path)


def publish(
    plan: RecipePlan,
    writer: LogitCacheWriter,
    run: TeacherPass,
    device: torch.device,
    started: float,
    rows: int,
    views_taken_over: int = 0,
) -> Cached:
    """Publishes a cache, and notes what it took since `started`, a time of `time.perf_counter`. Raises what the writer
    raises, and CorruptError or ChangedError where the data have changed since the teacher saw them, or while they
    were decoded; what was written is then dropped.
    """
    with _dropping_changed(writer, CorruptError, ChangedError):
        run.require_unchanged()
    with _silenced_doubts(plan):
        cache = LogitCache.open(writer.publish())
    seconds = time.perf_counter() - started
    remember_pass(plan.base, plan.manifest.key, Pass(seconds, rows, views_taken_over, device_name(device)))
    return _measure(cache, seconds, rows, views_taken_over)


def measure_published(path: Path) -> Cached:
    """A cache that was built before, with the teacher's metrics on some of its rows."""
    return _measure(LogitCache.open(path), None, limit=_MEASURED_ROWS)


@contextlib.contextmanager
def _dropping_changed(writer: LogitCacheWriter, *changed: type[Exception]) -> Iterator[None]:
    """Where one of these errors is raised, what was written is dropped: its rows are of data as nobody has them."""
    try:
        yield
    except changed:
        writer.partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _silenced_doubts(plan: RecipePlan) -> Iterator[None]:
    """Where the recipe accepts a teacher at chance, that its answers are no better is not said of its cache."""
    with warnings.catch_warnings():
        if plan.settings.teacher.at_chance == "accept":
            warnings.filterwarnings("ignore", _AT_CHANCE, CacheWarning)
        yield


def _measure(
    cache: LogitCache, seconds: float | None, rows: int = 0, taken_over: int = 0, limit: int | None = None
) -> Cached:
    """Adds the teacher's metrics over all views, on the labels in the file. The file may be larger than memory; with
    `limit`, at most so many of its rows are read, spread evenly.
    """
    summary, metrics = summarize(cache, limit), Metrics()
    if isinstance(summary, RegressionSummary):
        if summary.mse is not None and summary.mae is not None:
            metrics["mse"], metrics["mae"] = summary.mse, summary.mae
        if summary.r2 is not None:
            metrics["r2"] = summary.r2
    elif isinstance(summary, SigmoidSummary):
        metrics = score_metrics(summary.scores, "binary" if cache.num_outputs == 1 else "multilabel")
    elif isinstance(summary, PositionSummary):
        if summary.next_log_prob is not None:
            metrics["perplexity"] = math.exp(-summary.next_log_prob)
        if summary.top1 is not None:
            metrics["accuracy"] = summary.top1
    elif summary.top1 is not None and summary.calibration_error is not None:
        metrics["top1"], metrics["ece"] = summary.top1, summary.calibration_error
    return Cached(cache, metrics, seconds, rows, taken_over, summary.rows)
