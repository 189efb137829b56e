"""The cost of a cache before it is built, and the cost of a live teacher instead."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from decant.cache import LogitCache, expected_size
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher_pass import teacher_logits
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.loading import OrderedKeys, default_workers
from decant.pipeline.views import ViewedData


@dataclass(frozen=True)
class RankCost:
    """What the busiest of several ranks does, each with a device and cores of its own."""

    ranks: int
    working: int
    """Ranks that have anything to do: rows are handed out in runs of whole blocks, or of whole batches."""
    rows: int
    reads: int
    """Bytes of inputs. Data that are held in memory are loaded whole by each."""
    writes: int
    """Bytes of the cache."""
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The cost of a cache."""

    path: Path
    exists: bool
    bytes: int
    views_taken_over: int
    """Views that can be copied from a cache that differs in the number of views alone."""
    seconds: float
    """Of the teacher's pass over all other views, extrapolated from a few timed batches."""
    live_seconds_an_epoch: float
    """What a live teacher would add to each epoch of a student, which loads the inputs in any case."""
    student_epochs: int
    """Of all distilled students of the recipe together."""
    ranks: RankCost | None = None
    """What each rank does where several compute the cache."""

    @property
    def pays_after_epochs(self) -> float:
        """Student epochs after which the cache has cost less than a live teacher."""
        return self.seconds / self.live_seconds_an_epoch


class SampleCost(NamedTuple):
    """What a sample takes in a teacher's pass, at the batch size and precision of the cache."""

    loading: float
    """To read it and make its view, in one process."""
    computing: float
    """To compute its logits and copy them to the host."""
    read: float = 0.0
    """Bytes that were read for it by calls of this process; 0 where the system does not tell."""


def estimate(plan: Plan, device: torch.device, batches: int = 5, ranks: int | None = None) -> Estimate:
    """Estimates what `cache_logits` would cost, and what each of `ranks` would do. Times a few batches; writes nothing.
    Raises as `Plan.teacher` does.
    """
    teacher, manifest, store = plan.teacher, plan.manifest, plan.store
    viewed, student = plan.data.student_train, plan.settings.student
    each = time_teacher(load_network(teacher), viewed, plan.settings.cache, device, batches)
    workers = max(1, default_workers(viewed.data.lazy))
    load_seconds = each.loading * len(viewed) / workers
    teacher_seconds = each.computing * len(viewed)
    others = [LogitCache.open(path, verify="off") for path in store.with_other_views(manifest)]
    taken_over = max((min(other.num_views, manifest.num_views) for other in others), default=0)
    published = plan.find_cache()
    return Estimate(
        path=published or store.path(manifest),
        exists=published is not None,
        bytes=expected_size(manifest),
        views_taken_over=taken_over,
        seconds=(load_seconds + teacher_seconds) * (manifest.num_views - taken_over),
        live_seconds_an_epoch=teacher_seconds,
        student_epochs=student.epochs * student.seeds,
        ranks=None if ranks is None else _each_of(ranks, plan, each, manifest.num_views - taken_over),
    )


def _each_of(ranks: int, plan: Plan, each: SampleCost, views: int) -> RankCost:
    """What the busiest rank does for so many views that are not there yet."""
    manifest, data = plan.manifest, plan.data.student_train.data
    size = plan.settings.cache.batch_size
    batches = views * -(-manifest.num_samples // size)
    rows = min(-(-batches // ranks) * size, views * manifest.num_samples)
    held = data.inputs.nbytes if isinstance(data, ArrayData) else None
    input_bytes = each.read or float(np.prod(data.input_shape))
    loading = each.loading / max(1, default_workers(data.lazy))
    return RankCost(
        ranks=ranks,
        working=min(ranks, batches),
        rows=rows,
        reads=round(rows * input_bytes) if held is None else held,
        writes=round(rows * expected_size(manifest) / (manifest.num_views * manifest.num_samples)),
        seconds=rows * (loading + each.computing),
    )


def time_teacher(
    network: nn.Module, viewed: ViewedData, settings: CacheSettings, device: torch.device, batches: int = 5
) -> SampleCost:
    """Times the teacher's pass: the median of a few batches, after one to warm up."""
    network.to(device)
    loading, computing, read = [], [], []
    keys = OrderedKeys(len(viewed), settings.batch_size)
    for batch in itertools.islice(itertools.cycle(keys), batches + 1):
        started, before = time.perf_counter(), _bytes_read()
        inputs, _ = viewed.batch(batch)
        loaded = time.perf_counter()
        read.append((_bytes_read() - before) / len(batch))
        teacher_logits(network, inputs, device, settings.precision)
        loading.append((loaded - started) / len(batch))
        computing.append((time.perf_counter() - loaded) / len(batch))
    return SampleCost(*(float(np.median(column[1:])) for column in (loading, computing, read)))


def _bytes_read() -> int:
    """Bytes that this process has read by calls; 0 where the system does not tell."""
    with contextlib.suppress(OSError, LookupError, ValueError):
        return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])
    return 0
