"""A cache compared with its teacher: some of its rows, computed again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from decant.cache import LogitCache
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher_pass import teacher_logits
from decant.pipeline.runs.saved_network import load_network

ARITHMETIC_ERROR = {"float32": 1e-3, "bfloat16": 5e-2}  # of the largest logit


@dataclass(frozen=True)
class Comparison:
    """How far the stored rows are from what the teacher computes now."""

    path: Path
    rows: int
    largest: float
    """Largest |cached − live| of any logit."""
    rounding: float
    """The part of it that comes from storing in `dtype`: half a unit in the last place of that logit, or less."""
    dtype: str
    bound: float
    """The most that `largest` may be: twice the rounding, and what other batch sizes change in the teacher's
    arithmetic.
    """

    @property
    def agrees(self) -> bool:
        """Whether the cache holds what this teacher computes."""
        return self.largest <= self.bound


def compare_with_teacher(
    plan: Plan, rows: int, device: torch.device, seed: int = 0, path: Path | None = None
) -> Comparison:
    """Runs the teacher on `rows` random (sample, view) pairs of its cache, or of the file at `path`.

    The batches are other ones than in phase one, so even float32 logits may differ in their last digits. Raises
    NotMadeError if teacher or cache is missing, and CorruptError for damaged rows.
    """
    path = path or plan.find_cache()
    if path is None:
        raise plan.not_built()
    cache, viewed, settings = LogitCache.open(path), plan.data.student_train, plan.settings.cache
    random = np.random.default_rng(seed)
    keys = np.stack(
        [random.integers(0, len(viewed), rows), random.integers(0, cache.num_views, rows)], axis=1
    )
    network = load_network(plan.teacher).to(device)
    largest = rounding = magnitude = 0.0
    for first in range(0, rows, settings.batch_size):
        batch = keys[first : first + settings.batch_size]
        live = teacher_logits(network, viewed.batch(batch)[0], device, settings.precision)
        off, explained = cache.encoding.compare(cache.encoded(batch[:, 0], batch[:, 1]), live)
        largest, rounding = max(largest, off), max(rounding, explained)
        magnitude = max(magnitude, float(np.abs(live).max()))
    bound = 2 * rounding + ARITHMETIC_ERROR[settings.precision] * magnitude
    return Comparison(path, rows, largest, rounding, cache.manifest.encoding.name, bound)
