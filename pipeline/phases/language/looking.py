"""What a few of the teacher's answers say: what a cache costs, how small its rows may be, and whether they are this
teacher's. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from decant.cache import LogitCache, Sparse, SparseSurvey, expected_size
from decant.pipeline.errors import RecipeError
from decant.pipeline.language.batches import batches
from decant.pipeline.language.batches import plan as plan_lengths
from decant.pipeline.language.batches import plan_of as batches_of
from decant.pipeline.language.blocks import computed_tokens
from decant.pipeline.phases.compact import ROWS, Sizes, size_of
from decant.pipeline.phases.cost import Estimate, RankCost
from decant.pipeline.phases.language import served_pass
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.teacher_pass import TokensPass, tokens_per_batch
from decant.pipeline.phases.verify import ARITHMETIC_ERROR, Comparison
from decant.pipeline.support.progress import progress

_TIMED_BATCHES = 4


def estimate(plan: LanguagePlan, device: torch.device, ranks: int | None = None) -> Estimate:
    """Estimates what `cache_logits` would cost for the part of a plan. Times a few batches. Raises NotMadeError where
    the teacher is not finished.
    """
    if plan.server is not None:
        return served_pass.estimate(plan)
    manifest, student = plan.manifest, plan.settings.student
    each = _seconds_a_position(plan, device)
    count, views = int(plan.samples.num_positions.sum()), plan.num_views
    published = plan.find_cache()
    size = expected_size(manifest)
    return Estimate(
        path=published or plan.store.path(manifest),
        exists=published is not None,
        bytes=size,
        views_taken_over=0,
        seconds=each * count,
        live_seconds_an_epoch=each * count,
        student_epochs=student.epochs * student.seeds,
        ranks=None if ranks is None else _each_of(ranks, plan, each * count, count * views, size),
    )


def _each_of(ranks: int, plan: LanguagePlan, seconds: float, rows: int, size: int) -> RankCost:
    """What the busiest of so many ranks does."""
    batches = sum(map(len, batches_of(plan.samples, tokens_per_batch(plan))))
    share = -(-batches // ranks) / batches
    return RankCost(
        ranks=ranks,
        working=min(ranks, batches),
        rows=round(rows * share),
        reads=round(int(plan.samples.lengths.sum()) * 4 * share),
        writes=round(size * share),
        seconds=seconds * share,
    )


def survey(plan: LanguagePlan, device: torch.device, rows: int = ROWS) -> Sizes:
    """What heads and draws of several sizes would leave out of some of the teacher's rows. Raises RecipeError for a
    recipe whose cache is not sparse.
    """
    if plan.server is not None:
        raise RecipeError(
            "--max-error: a server tells the likeliest tokens alone; what they leave out is said before its pass, and "
            "cache.encoding.head sets how many there are"
        )
    encoding = plan.encoding_for(plan.teacher)
    if not isinstance(encoding, Sparse):
        raise RecipeError('--max-error: is of a sparse cache; set cache.encoding = "sparse"')
    found, started, manifest = SparseSurvey(encoding.temperatures), time.perf_counter(), plan.manifest
    count, chosen = 0, _samples_with(plan, rows, None)
    with progress("looking at the teacher's rows", len(chosen)) as advance:
        for samples, _, logits in _answers(plan, device, chosen):
            found.add(logits)
            count += len(logits)
            advance(len(samples))
    sizes = tuple(size_of(one, encoding, manifest) for one in found)
    return Sizes(sizes, count, time.perf_counter() - started)


def compare_with_teacher(
    plan: LanguagePlan, rows: int, device: torch.device, seed: int = 0, path: Path | None = None
) -> Comparison:
    """Runs the teacher on random samples with about so many positions, and compares its cache's rows of them, or those
    of the file at `path`. Raises NotMadeError if teacher or cache is missing, and CorruptError for damaged rows.
    """
    path = path or plan.find_cache()
    if path is None:
        raise plan.not_built()
    cache, precision = LogitCache.open(path), plan.settings.cache.precision
    chosen = _samples_with(plan, rows, np.random.default_rng(seed))
    if plan.server is not None:
        return served_pass.compare(plan, cache, chosen.tolist())
    largest = rounding = magnitude = 0.0
    count = 0
    for samples, some, logits in _answers(plan, device, chosen):
        for view in range(cache.num_views):
            stored = {name: table[some] for name, table in cache.encoded(samples, view).items()}
            off, explained = cache.encoding.compare(stored, logits)
            largest, rounding = max(largest, off), max(rounding, explained)
        magnitude, count = max(magnitude, float(np.abs(logits).max())), count + len(logits)
    bound = 2 * rounding + ARITHMETIC_ERROR[precision] * magnitude
    return Comparison(path, count, largest, rounding, cache.manifest.encoding.name, bound)


def _seconds_a_position(plan: LanguagePlan, device: torch.device) -> float:
    """The median of a few batches, after one to warm up: of the teacher, and of what its rows become."""
    run, counts = TokensPass(plan).on(device), plan.samples.num_positions
    planned = [batch for window in batches_of(plan.samples, tokens_per_batch(plan)) for batch in window]
    found = []
    for place in np.linspace(0, len(planned) - 1, _TIMED_BATCHES + 1).astype(int).tolist():
        started = time.perf_counter()
        run.encode(planned[place])
        found.append((time.perf_counter() - started) / int(counts[planned[place]].sum()))
    return float(np.median(found[1:]))


def _samples_with(plan: LanguagePlan, rows: int, random: np.random.Generator | None) -> NDArray[np.int64]:
    """Samples with at least so many positions, as far as there are: spread evenly, or drawn."""
    counts = plan.samples.num_positions
    wanted = min(len(counts), max(1, round(rows / float(counts.mean()))))
    if random is None:
        return np.unique(np.linspace(0, len(counts) - 1, wanted).astype(np.int64))
    return np.sort(random.permutation(len(counts))[:wanted]).astype(np.int64)


@torch.inference_mode()
def _answers(
    plan: LanguagePlan, device: torch.device, chosen: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], slice, NDArray[np.float32]]]:
    """Samples of a batch, some of the rows of all of them, and the teacher's logits (q, C) there."""
    model, budget = TokensPass(plan).model(device), tokens_per_batch(plan)
    computed = computed_tokens(plan.samples)[chosen]
    planned = (chosen[batch] for window in plan_lengths(computed, budget) for batch in window)
    for batch in batches(plan.samples, planned):
        first = 0
        for logits in model.logits(model.hidden_at(batch, "cache.tokens_per_batch")):
            some = slice(first, first + len(logits))
            yield batch.samples, some, logits.cpu().numpy()
            first = some.stop
