"""The cost of a cache before it is built, and the cost of a live teacher instead."""

from __future__ import annotations

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
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher_pass import teacher_logits
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.loading import OrderedKeys, default_workers
from decant.pipeline.views import ViewedData


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

    @property
    def pays_after_epochs(self) -> float:
        """Student epochs after which the cache has cost less than a live teacher."""
        return self.seconds / self.live_seconds_an_epoch


class SampleSeconds(NamedTuple):
    """Seconds that a sample takes in a teacher's pass, at the batch size and precision of the cache."""

    loading: float
    """To read it and make its view, in one process."""
    computing: float
    """To compute its logits and copy them to the host."""


def estimate(plan: Plan, device: torch.device, batches: int = 5) -> Estimate:
    """Estimates what `cache_logits` would cost. Times a few batches; writes nothing. Raises as `Plan.teacher` does."""
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
    )


def time_teacher(
    network: nn.Module, viewed: ViewedData, settings: CacheSettings, device: torch.device, batches: int = 5
) -> SampleSeconds:
    """Times the teacher's pass: the median of a few batches, after one to warm up."""
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
