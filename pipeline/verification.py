"""A cache held against its teacher: the same rows, run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cache import LogitCache, Store
from pipeline import networks
from pipeline.cache_logits import question, teacher_logits
from pipeline.errors import NotMadeError
from pipeline.recipe import Recipe


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
    network = networks.load(teacher).to(device)
    largest = rounding = 0.0
    for first in range(0, rows, recipe.settings.cache.batch_size):
        batch = keys[first : first + recipe.settings.cache.batch_size]
        live = teacher_logits(network, viewed.batch(batch)[0], device, recipe.settings.cache.precision)
        stored = cache.logits(batch[:, 0], batch[:, 1]).astype(np.float32)
        rounded = live.astype(cache.manifest.dtype).astype(np.float32)
        largest = max(largest, float(np.abs(stored - live).max()))
        rounding = max(rounding, float(np.abs(rounded - live).max()))
    return Comparison(path, rows, largest, rounding, cache.manifest.dtype.name)
