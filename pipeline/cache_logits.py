"""Phase one: teacher × data × views → cache file."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cache import LogitCache, LogitCacheWriter, Manifest, Store
from cache.copying import take_over_views
from cache.dataset import input_crc32
from cache.layout import expected_size
from cache.statistics import summarize
from pipeline import identity, networks
from pipeline.data import load
from pipeline.loading import OrderedKeys, default_workers, loader
from pipeline.metrics import Metrics
from pipeline.progress import progress
from pipeline.recipe import Recipe
from pipeline.runs import Result, find_teacher
from pipeline.training import autocast
from pipeline.views import ViewedData

_FOUND_ROWS = 100_000  # of a cache that is there already, read for its teacher's top-1


@dataclass(frozen=True)
class Cached:
    """A published cache, and what making it took; `seconds` is None where it was there already."""

    cache: LogitCache
    metrics: Metrics
    """The teacher's top-1 and calibration error over all views, computed from the file."""
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


def cache_logits(
    recipe: Recipe, base: Path, store: Store, device: torch.device, waiting: Callable[[str], None]
) -> Cached:
    """Runs the teacher once over every sample and view, and publishes its raw logits; finds the file when it
    is there.

    The teacher is in evaluation mode and inputs come in the order of their index. Batch b is always samples
    b·B to (b+1)·B − 1, so a pass that was killed computes what is missing from the same batches, and ends in
    the same file. Raises NotMadeError without a finished teacher, CacheError where the file cannot be made.
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
                return _measured(cache, seconds, rows, taken_over)
    cache = LogitCache.open(found)
    return _measured(cache, None, limit=_FOUND_ROWS)


def estimate(recipe: Recipe, base: Path, store: Store, device: torch.device, batches: int = 5) -> Estimate:
    """What `cache_logits` would cost, from the median of a few timed batches after one for warming up."""
    viewed, teacher, manifest = question(recipe, base)
    settings, student = recipe.settings.cache, recipe.settings.student
    network = networks.load(teacher).to(device)
    loading, computing = [], []
    keys = OrderedKeys(len(viewed), settings.batch_size)
    for batch in itertools.islice(itertools.cycle(keys), batches + 1):
        started = time.perf_counter()
        inputs, _ = viewed.batch(batch)
        loaded = time.perf_counter()
        teacher_logits(network, inputs, device, settings.precision)
        loading.append((loaded - started) / len(batch))
        computing.append((time.perf_counter() - loaded) / len(batch))
    workers = max(1, default_workers(viewed.data.lazy))
    load_seconds = float(np.median(loading[1:])) * len(viewed) / workers
    teacher_seconds = float(np.median(computing[1:])) * len(viewed)
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


def question(recipe: Recipe, base: Path) -> tuple[ViewedData, Result, Manifest]:
    """The training data through their views, the finished teacher, and the manifest that they lead to."""
    settings = recipe.settings
    data = load(settings.data, settings.views, "train")
    teacher = find_teacher(recipe, base, identity.of_views(settings.views, data), identity.of_data(data))
    manifest = identity.of_cache(data, settings.views, teacher, settings.cache)
    return ViewedData(data, settings.views), teacher, manifest


def _fill(
    writer: LogitCacheWriter, viewed: ViewedData, teacher: Result, recipe: Recipe, device: torch.device
) -> int:
    """Writes every row that is missing; how many those were."""
    settings, total = recipe.settings.cache, 0
    written = [writer.is_written(view) for view in range(writer.manifest.num_views)]
    if all(rows.all() for rows in written):
        return 0
    network = networks.load(teacher).to(device).to(memory_format=torch.channels_last)
    with progress("caching logits", sum(len(rows) for rows in written)) as advance:
        for view, rows in enumerate(written):
            advance(int(rows.sum()))
            starts = np.arange(0, len(rows), settings.batch_size)
            wanted = np.flatnonzero(~np.logical_and.reduceat(rows, starts))
            keys = OrderedKeys(len(viewed), settings.batch_size, view, wanted)
            for batch, (inputs, _) in zip(
                keys, loader(viewed, keys, default_workers(viewed.data.lazy)), strict=True
            ):
                logits = teacher_logits(network, inputs, device, settings.precision)
                missing = ~rows[batch[:, 0]]
                writer.write(
                    batch[missing, 0],
                    logits[missing],
                    labels=viewed.data.labels[batch[missing, 0]],
                    input_crc32=np.array([input_crc32(value) for value in inputs], np.uint32)[missing],
                    view=view,
                )
                advance(int(missing.sum()))
                total += int(missing.sum())
    return total


@torch.inference_mode()
def teacher_logits(
    network: nn.Module, inputs: torch.Tensor, device: torch.device, precision: str
) -> np.ndarray[Any, Any]:
    """(B, C) float32 raw outputs of the teacher in evaluation mode."""
    network.eval()
    inputs = inputs.to(device)
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with autocast(device, precision):
        return network(inputs).float().cpu().numpy()


def _measured(
    cache: LogitCache, seconds: float | None, rows: int = 0, taken_over: int = 0, limit: int | None = None
) -> Cached:
    """With the teacher's metrics on the labels that it was run on, all views together, from the file, which
    may be larger than memory; of `limit` rows at even distances where that is fewer.
    """
    found, metrics = summarize(cache, limit), Metrics()
    if found.top1 is not None and found.calibration_error is not None:
        metrics["top1"], metrics["ece"] = found.top1, found.calibration_error
    return Cached(cache, metrics, seconds, rows, taken_over, found.rows)
