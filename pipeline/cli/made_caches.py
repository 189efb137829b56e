"""Caches as commands make and show them: in words on the terminal, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decant.pipeline.cli.options import percent, say
from decant.pipeline.config.tasks import headline

if TYPE_CHECKING:
    from decant.cache import LogitCache
    from decant.pipeline.phases.cache_logits import Cached
    from decant.pipeline.phases.cost import Estimate, RankCost
    from decant.pipeline.phases.kinds import RecipePlan


def make_cache(plan: RecipePlan, device: str) -> dict[str, Any]:
    """Makes or finds a cache, with the other ranks where this is one, and prints it; returns the same for `--json`."""
    from decant.pipeline.phases import cache_logits as phase
    from decant.pipeline.ranks.job import join
    from decant.pipeline.runs.notes import remember_cache
    from decant.pipeline.training.device import pick_device

    job = join()
    if job is None:
        cached: phase.Cached | phase.RowsWritten = phase.cache_logits(
            plan, pick_device(device), _print_waiting
        )
    else:
        from decant.pipeline.phases.cache_ranks import cache_with_ranks

        cached = cache_with_ranks(job, plan, pick_device(device), _print_waiting)
    if isinstance(cached, phase.RowsWritten):  # what rank 0 says of
        return {"path": cached.path, "rows": cached.rows}
    remember_cache(plan.recipe, plan.base, cached.cache.path)
    return _shown(cached, plan)


def make_part(plan: RecipePlan, device: str, part: tuple[int, int]) -> dict[str, Any]:
    """Makes a part of a cache, and perhaps publishes the whole; prints it and returns the same for `--json`."""
    from decant.pipeline.phases import cache_logits as phase
    from decant.pipeline.runs.notes import remember_cache
    from decant.pipeline.training.device import pick_device

    made = phase.cache_part(plan, pick_device(device), part)
    if not isinstance(made, phase.RowsWritten):
        remember_cache(plan.recipe, plan.base, made.cache.path)
        return _shown(made, plan)
    elsewhere = "; all parts need this file: let DECANT_CACHE_HOME name a folder that all machines share"
    say(
        f"wrote part {part[0] + 1} of {part[1]} of {made.path}: {made.rows:,} rows; {made.missing}; the part that "
        f"comes last publishes the cache{'' if plan.store.remote is None else elsewhere}"
    )
    return {"path": made.path, "exists": False, "part": list(part), "rows": made.rows}


def estimate(plan: RecipePlan, device: str, ranks: int | None) -> dict[str, Any]:
    """Prints what a cache would cost; returns the same for `--json`."""
    from decant.pipeline.phases import any_recipe
    from decant.pipeline.training.device import pick_device

    cost = any_recipe.estimate(plan, pick_device(device), ranks=ranks)
    _print_estimate(cost, plan.of_cache)
    return {
        **_split(plan),
        **asdict(cost),
        "pays_after_epochs": cost.pays_after_epochs,
    }


def print_accuracy(path: Path) -> None:
    """The teacher's top-1 on the labels of a cache, where it has class labels."""
    from decant.cache import LogitCache, accuracy_in

    found = accuracy_in(LogitCache.open(path))
    if found is not None:
        say(
            f"the teacher's top-1 is {percent(found.top1)} on {found.samples:,} samples; chance is "
            f"{percent(found.chance)}"
        )


def _shown(cached: Cached, plan: RecipePlan) -> dict[str, Any]:
    """Prints a cache; returns the same for `--json`."""
    _print_cache(cached, plan.of_cache)
    cache = cached.cache
    return {
        "path": cache.path,
        **_split(plan),
        "found": cached.seconds is None,
        "key": cache.manifest.key,
        "views": cache.num_views,
        "samples": cache.num_samples,
        "outputs": cache.num_outputs,
        "dtype": cache.manifest.dtype.name,
        "bytes": cache.path.stat().st_size,
        "seconds": cached.seconds,
        "rows": cached.rows,
        "views_taken_over": cached.views_taken_over,
        "metrics": cached.metrics,
        "measured": cached.measured,
    }


def _split(plan: RecipePlan) -> dict[str, str]:
    """For `--json`: the part that a cache is of, where there are several."""
    return {"split": plan.of_cache} if plan.of_cache else {}


def _print_cache(cached: Cached, part: str) -> None:
    cache, of_part = cached.cache, f", of the {part} part" if part else ""
    if cached.seconds is None:
        say(f"found {cache.path}{of_part}: nothing to do, no teacher was loaded")
    else:
        say(
            f"made {cache.path}{of_part}: {cached.rows:,} rows in {cached.seconds:,.1f} s{_taken_over(cached)}"
        )
    views = "" if cache.num_views == 1 else f"{cache.num_views:,} views of "
    part = (
        ""
        if cached.measured == cache.num_views * cache.manifest.num_rows
        else f" of {cached.measured:,} rows"
    )
    unit, samples = "samples", f"{cache.num_samples:,} samples"
    if cache.has_positions:
        unit, samples = "positions", f"{samples} of {cache.manifest.num_rows:,} positions"
    rate = "" if not cached.seconds else f", {cached.rows / cached.seconds:,.0f} {unit}/s"
    figure, outputs = headline(cached.metrics), _outputs(cache)
    say(
        f"  {views}{samples} × {cache.num_outputs:,} {outputs}, {cache.manifest.encoding.name}, "
        f"{cache.path.stat().st_size:,} bytes{rate}; the teacher's {figure.name} on these labels, from the file: "
        f"{figure.text(cached.metrics)}{part}"
    )


def _outputs(cache: LogitCache) -> str:
    """What the outputs of a cache are called."""
    if cache.has_positions:
        return "tokens"
    if cache.manifest.has_sigmoids:
        return "sigmoids"
    return "classes" if cache.manifest.num_targets is None else "targets"


def _print_estimate(cost: Estimate, part: str) -> None:
    of_part = f", of the {part} part" if part else ""
    if cost.exists:
        say(f"found {cost.path}{of_part}: nothing to do")
    else:
        taken_over = _taken_over(cost)
        say(
            f"would make {cost.path}{of_part}: {cost.bytes:,} bytes, about {cost.seconds:,.3g} s of "
            f"teacher{taken_over}"
        )
    say(
        f"  a live teacher would add about {cost.live_seconds_an_epoch:,.3g} s to every student epoch: the "
        f"cache has paid for itself after {cost.pays_after_epochs:,.0f} of these, and this recipe's distilled "
        f"students train for {cost.student_epochs:,}"
    )
    if cost.ranks is not None and not cost.exists:
        _print_rank(cost.ranks)


def _print_rank(rank: RankCost) -> None:
    idle = rank.ranks - rank.working
    say(
        f"  {rank.ranks:,} ranks, each with a device and cores of its own: about {rank.seconds:,.3g} s; a rank "
        f"computes up to {rank.rows:,} rows, reads {rank.reads:,} bytes of inputs and writes {rank.writes:,}"
        + (f"; {idle:,} of them have nothing to do: there are {rank.working:,} runs of rows" if idle else "")
    )


def _taken_over(made: Cached | Estimate) -> str:
    views = made.views_taken_over
    return f"; views taken over from a cache with another number of them: {views:,}" if views else ""


def _print_waiting(holder: str) -> None:
    say(f"waiting: {holder} is building this cache", err=True)
