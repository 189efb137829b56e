"""Phase one: teacher × data × views → cache file."""

from __future__ import annotations

import contextlib
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

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
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.data.samples import check_unchanged
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher_pass import fill, forward
from decant.pipeline.ranks.launch import is_first
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.notes import Pass, remember_pass
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.source_code import is_users
from decant.pipeline.training import handout
from decant.pipeline.training.forward import name_of
from decant.pipeline.training.handout import Run
from decant.pipeline.training.metrics import Metrics, score_metrics
from decant.pipeline.training.steadiness import doubt_of_outputs
from decant.pipeline.training.teacher_rows import units_of, written_rows
from decant.pipeline.views import ViewedData

_AT_CHANCE = r".*: likely not a trained teacher's logits: (top-1 is |class \d+ is the teacher's answer )"
"""The warnings of `decant.cache` that say so."""
_MEASURED_ROWS = 100_000  # of a cache that was built before, for the teacher's metrics


@dataclass(frozen=True)
class Cached:
    """A published cache, and what it took to build."""

    cache: LogitCache
    metrics: Metrics
    """The teacher's, computed from the file over all views: top-1 and calibration error, the scores of sigmoids, or
    the errors of a regression.
    """
    seconds: float | None
    """None if the cache was built before."""
    rows: int
    """Rows that this call computed; the others were copied, or computed by a call that was killed."""
    views_taken_over: int
    """Views that were copied from a cache that differs in the number of views alone."""
    measured: int
    """The number of rows that the metrics are of."""


def cache_logits(plan: Plan, device: torch.device, waiting: Callable[[str], None]) -> Cached:
    """Runs the teacher once over every sample and view, and publishes its logits; finds the file if it exists.

    A pass that was killed goes on where it stopped, and ends in the same file. While another process builds the same
    cache, calls `waiting` once with its name, and waits. Raises NotMadeError if the teacher is not finished, and
    CacheError if the file cannot be written.
    """
    path = plan.find_cache()
    if path is None:
        with plan.store.building(plan.manifest, waiting) as target:
            path = plan.find_cache()  # another process may have built it while this one waited
            if path is None:
                started = time.perf_counter()
                with LogitCacheWriter(target, plan.manifest) as writer:
                    taken_over = take_over_views(writer, plan.store)
                    rows = compute_missing_rows(writer, plan, device)
                    return publish(plan, writer, device, started, rows, taken_over)
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


def cache_part(plan: Plan, device: torch.device, part: tuple[int, int]) -> Cached | RowsWritten:
    """Computes part (i, n) of a cache, 0 ≤ i < n: of n equal runs of blocks the i-th. Publishes it where every other
    part is written, by whichever processes, in whatever order, at once or not, on all machines that see the store.

    All parts write one partial file, whose room is reserved once; of a store elsewhere it lies among the copies here,
    and the whole is published there. Raises as `cache_logits` does.
    """
    started, path = time.perf_counter(), plan.find_cache()
    if path is not None:
        return measure_published(path)
    units = units_of(plan.manifest, plan.settings.cache.batch_size, processes=part[1])
    try:
        with (
            plan.store.joining(plan.manifest) as target,
            LogitCacheWriter.join(target, plan.manifest) as writer,
        ):
            rows = compute_missing_rows(writer, plan, device, handout.part(units, *part))
            try:
                return publish(plan, writer, device, started, rows)
            except IncompleteError as error:
                missing = str(error).partition(": ")[2]
    except CacheError:
        if plan.find_cache() is None:  # where another has published it in that moment, all is well
            raise
        rows, missing = 0, ""
    path = plan.find_cache()
    return RowsWritten(writer.path, rows, missing) if path is None else measure_published(path)


def publish(
    plan: Plan,
    writer: LogitCacheWriter,
    device: torch.device,
    started: float,
    rows: int,
    views_taken_over: int = 0,
) -> Cached:
    """Publishes a cache, and notes what it took since `started`, a time of `time.perf_counter`. Raises what the writer
    raises, and CorruptError where the data have changed since the teacher saw them; what was written is then dropped.
    """
    _require_unchanged(plan, writer)
    with _silenced_doubts(plan):
        cache = LogitCache.open(writer.publish())
    seconds = time.perf_counter() - started
    remember_pass(plan.base, plan.manifest.key, Pass(seconds, rows, views_taken_over, device_name(device)))
    return _measure(cache, seconds, rows, views_taken_over)


def measure_published(path: Path) -> Cached:
    """A cache that was built before, with the teacher's metrics on some of its rows."""
    return _measure(LogitCache.open(path), None, limit=_MEASURED_ROWS)


def _require_unchanged(plan: Plan, writer: LogitCacheWriter) -> None:
    """Raises CorruptError where the data have changed since the teacher saw them; what was written is then dropped."""
    try:
        check_unchanged(plan.data.student_data, checksums=True)
    except CorruptError:
        writer.partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _silenced_doubts(plan: Plan) -> Iterator[None]:
    """Where the recipe accepts a teacher at chance, that its answers are no better is not said of its cache."""
    with warnings.catch_warnings():
        if plan.settings.teacher.at_chance == "accept":
            warnings.filterwarnings("ignore", _AT_CHANCE, CacheWarning)
        yield


def compute_missing_rows(
    writer: LogitCacheWriter,
    plan: Plan,
    device: torch.device,
    runs: Iterable[Run] | None = None,
    advance: Callable[[int], object] | None = None,
) -> int:
    """Has the teacher compute the rows of runs that are missing, by default all, and returns their number. If there are
    none, no teacher is loaded. advance: see `fill`.
    """
    viewed = plan.data.student_train
    first = next(left := iter(runs), None) if runs is not None else None
    if (runs is not None and first is None) or all(map(np.all, written_rows(writer))):
        return 0
    teacher = plan.teacher
    network = load_network(teacher)
    if is_first():
        _say_doubt(network, viewed, plan.settings.cache, device)
    return fill(
        writer,
        viewed,
        network,
        plan.settings.cache,
        device,
        same_every_batch=plan.settings.teacher.cuda_graphs and not is_users(teacher.network.name),
        runs=None if first is None else itertools.chain([first], left),
        advance=advance,
    )


def _say_doubt(network: nn.Module, viewed: ViewedData, settings: CacheSettings, device: torch.device) -> None:
    """Says where the teacher's answers to the first batch are others each time, or in another batch."""
    first = np.arange(min(settings.batch_size, len(viewed)))
    inputs, _ = viewed.batch(np.stack([first, np.zeros_like(first)], axis=1))
    network.to(device).to(memory_format=torch.channels_last)
    doubt = doubt_of_outputs(lambda some: forward(network, some, device, settings.precision), inputs)
    if doubt is not None:
        say_once(f"warning: {name_of(network)}: {doubt}; what its one pass gives is cached")


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
        if summary.top1 is not None:
            metrics["top1"] = summary.top1
    elif summary.top1 is not None and summary.calibration_error is not None:
        metrics["top1"], metrics["ece"] = summary.top1, summary.calibration_error
    return Cached(cache, metrics, seconds, rows, taken_over, summary.rows)
