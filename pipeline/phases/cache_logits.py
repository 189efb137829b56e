"""Phase one: teacher × data × views → cache file."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from decant.cache import (
    LogitCache,
    LogitCacheWriter,
    Manifest,
    RegressionSummary,
    Store,
    expected_size,
    summarize,
    take_over_views,
)
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.data import load
from decant.pipeline.data.held_out import divide
from decant.pipeline.phases import plan
from decant.pipeline.phases.teacher_pass import fill, teacher_logits
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.notes import Pass, remember_pass
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.loading import OrderedKeys, default_workers
from decant.pipeline.training.metrics import Metrics
from decant.pipeline.views import ViewedData

_FOUND_ROWS = 100_000  # of a cache that is there already, read for its teacher's top-1


@dataclass(frozen=True)
class Cached:
    """A published cache, and what making it took; `seconds` is None where it was there already."""

    cache: LogitCache
    metrics: Metrics
    """The teacher's top-1 and calibration error, or its errors of a regression, over all views, computed from the
    file.
    """
    seconds: float | None
    rows: int
    """Rows that this call computed; the rest were there from before a kill, or taken over."""
    views_taken_over: int
    """Views that a cache of the same question with another number of views had already."""
    measured: int
    """Rows that the metrics are of."""


@dataclass(frozen=True)
class Estimate:
    """What a cache would cost, before any of it is spent."""

    path: Path
    exists: bool
    bytes: int
    views_taken_over: int
    """Views that a cache of the same question with another number of views has already."""
    seconds: float
    """Of the teacher's pass over every other view, from a few timed batches."""
    live_seconds_an_epoch: float
    """What a live teacher would add to each epoch of a student, which loads the inputs anyway."""
    student_epochs: int
    """Of all students of the recipe together."""

    @property
    def pays_after_epochs(self) -> float:
        """Student epochs after which the cache has cost less than a live teacher."""
        return self.seconds / self.live_seconds_an_epoch


class SampleSeconds(NamedTuple):
    """Seconds of one sample in a teacher's pass, at the batch size and precision of the cache."""

    loading: float
    """Of reading it and making its view, in one process."""
    computing: float
    """Of the teacher, until its logits are on the host."""


def cache_logits(
    recipe: Recipe, base: Path, store: Store, device: torch.device, waiting: Callable[[str], None]
) -> Cached:
    """Runs the teacher once over every sample and view, and publishes its raw logits; finds the file when it
    is there.

    A pass that was killed goes on where it was, and ends in the same file. Raises NotMadeError without a
    finished teacher, CacheError where the file cannot be made.
    """
    viewed, teacher, manifest = question(recipe, base)
    found = store.find(manifest)
    if found is None:
        with store.building(manifest, waiting) as path:
            found = store.find(manifest)  # another builder may have finished while this one waited
            if found is None:
                started = time.perf_counter()
                with LogitCacheWriter(path, manifest) as writer:
                    taken_over = take_over_views(writer, store)
                    rows = _fill(writer, viewed, teacher, recipe, device)
                    cache = LogitCache.open(writer.publish())
                seconds = time.perf_counter() - started
                remember_pass(base, manifest.key, Pass(seconds, rows, taken_over, device_name(device)))
                return _measured(cache, seconds, rows, taken_over)
    cache = LogitCache.open(found)
    return _measured(cache, None, limit=_FOUND_ROWS)


def estimate(recipe: Recipe, base: Path, store: Store, device: torch.device, batches: int = 5) -> Estimate:
    """What `cache_logits` would cost, from the median of a few timed batches after one for warming up."""
    viewed, teacher, manifest = question(recipe, base)
    student = recipe.settings.student
    each = time_teacher(load_network(teacher), viewed, recipe.settings.cache, device, batches)
    workers = max(1, default_workers(viewed.data.lazy))
    load_seconds = each.loading * len(viewed) / workers
    teacher_seconds = each.computing * len(viewed)
    others = [LogitCache.open(path, verify="off") for path in store.with_other_views(manifest)]
    taken_over = max((min(other.num_views, manifest.num_views) for other in others), default=0)
    return Estimate(
        path=store.find(manifest) or store.path(manifest),
        exists=store.find(manifest) is not None,
        bytes=expected_size(manifest),
        views_taken_over=taken_over,
        seconds=(load_seconds + teacher_seconds) * (manifest.num_views - taken_over),
        live_seconds_an_epoch=teacher_seconds,
        student_epochs=student.epochs * student.seeds,
    )


def time_teacher(
    network: nn.Module, viewed: ViewedData, settings: CacheSettings, device: torch.device, batches: int = 5
) -> SampleSeconds:
    """What a sample takes in the teacher's pass, from the median of a few timed batches after one for warming up."""
    network.to(device)
    loading, computing = [], []
    keys = OrderedKeys(len(viewed), settings.batch_size)
    for batch in itertools.islice(itertools.cycle(keys), batches + 1):
        started = time.perf_counter()
        inputs, _ = viewed.batch(batch)
        loaded = time.perf_counter()
        teacher_logits(network, inputs, device, settings.precision)
        loading.append((loaded - started) / len(batch))
        computing.append((time.perf_counter() - loaded) / len(batch))
    return SampleSeconds(float(np.median(loading[1:])), float(np.median(computing[1:])))


def question(recipe: Recipe, base: Path) -> tuple[ViewedData, Result, Manifest]:
    """What students learn from, through its views, the finished teacher, and the manifest that they lead to."""
    settings = recipe.settings
    learnt_from, data = divide(settings, load(settings.data, settings.views, "train"))
    views = plan.of_views(settings.views, learnt_from)
    teacher = plan.find_teacher(recipe, base, views, plan.of_data(learnt_from))
    manifest = plan.of_cache(data, settings.views, teacher, settings.cache)
    return ViewedData(data, settings.views), teacher, manifest


def _fill(
    writer: LogitCacheWriter, viewed: ViewedData, teacher: Result, recipe: Recipe, device: torch.device
) -> int:
    """Has the teacher compute what is missing, if anything is; how many rows those were."""
    if all(writer.is_written(view).all() for view in range(writer.manifest.num_views)):
        return 0
    return fill(writer, viewed, load_network(teacher), recipe.settings.cache, device)


def _measured(
    cache: LogitCache, seconds: float | None, rows: int = 0, taken_over: int = 0, limit: int | None = None
) -> Cached:
    """With the teacher's metrics on the labels that it was run on, all views together, from the file, which
    may be larger than memory; of `limit` rows at even distances where that is fewer.
    """
    found, metrics = summarize(cache, limit), Metrics()
    if isinstance(found, RegressionSummary):
        if found.mse is not None and found.mae is not None:
            metrics["mse"], metrics["mae"] = found.mse, found.mae
        if found.r2 is not None:
            metrics["r2"] = found.r2
    elif found.top1 is not None and found.calibration_error is not None:
        metrics["top1"], metrics["ece"] = found.top1, found.calibration_error
    return Cached(cache, metrics, seconds, rows, taken_over, found.rows)
