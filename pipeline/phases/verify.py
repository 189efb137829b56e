"""A cache held against its teacher: the same rows, run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from decant.cache import LogitCache, Store
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.cache_logits import question
from decant.pipeline.phases.teacher_pass import teacher_logits
from decant.pipeline.runs.saved_network import load_network

_ARITHMETIC = {"float32": 1e-3, "bfloat16": 5e-2}  # of the largest logit


@dataclass(frozen=True)
class Comparison:
    """How far the stored rows are from what the teacher says now."""

    path: Path
    rows: int
    largest: float
    """Largest |cached − live| of any logit."""
    rounding: float
    """The part of it that storing in `dtype` explains: half a unit in the last place of that logit, or less."""
    dtype: str
    bound: float
    """What `largest` may be: twice the rounding, and what other batches change in the teacher's arithmetic."""

    @property
    def agrees(self) -> bool:
        """Whether the cache holds what this teacher says."""
        return self.largest <= self.bound


def compare_with_teacher(
    recipe: Recipe, base: Path, store: Store, rows: int, device: torch.device, seed: int = 0
) -> Comparison:
    """Runs the recipe's teacher on `rows` random (sample, view) pairs of its cache.

    Raises NotMadeError where teacher or cache is missing, CorruptError for damaged rows. Batches are other
    than those of phase one, so that float32 itself may differ in its last digits.
    """
    viewed, teacher, manifest = question(recipe, base)
    path = store.find(manifest)
    if path is None:
        raise NotMadeError(f"{store.path(manifest)}: not built yet; run: {recipe.command('cache-logits')}")
    cache = LogitCache.open(path)
    random = np.random.default_rng(seed)
    keys = np.stack(
        [random.integers(0, len(viewed), rows), random.integers(0, cache.num_views, rows)], axis=1
    )
    network = load_network(teacher).to(device)
    largest = rounding = magnitude = 0.0
    for first in range(0, rows, recipe.settings.cache.batch_size):
        batch = keys[first : first + recipe.settings.cache.batch_size]
        live = teacher_logits(network, viewed.batch(batch)[0], device, recipe.settings.cache.precision)
        stored = cache.logits(batch[:, 0], batch[:, 1]).astype(np.float32)
        rounded = live.astype(cache.manifest.dtype).astype(np.float32)
        largest = max(largest, float(np.abs(stored - live).max()))
        rounding = max(rounding, float(np.abs(rounded - live).max()))
        magnitude = max(magnitude, float(np.abs(live).max()))
    bound = 2 * rounding + _ARITHMETIC[recipe.settings.cache.precision] * magnitude
    return Comparison(path, rows, largest, rounding, cache.manifest.dtype.name, bound)
