"""The phases as commands: `decant teacher`, `cache-logits`, `student` and `evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from decant.pipeline.cli import sizes
from decant.pipeline.cli.options import (
    PART,
    as_json,
    leave_to_rank_0,
    log_to_option,
    percent,
    print_json,
    print_table,
    recipe_options,
    say,
)
from decant.pipeline.config.tasks import formats, headline
from decant.pipeline.ranks.beside import ranks_beside
from decant.pipeline.ranks.launch import is_first, launched

if TYPE_CHECKING:
    from decant.cache import LogitCache, Store
    from decant.pipeline.config.recipe import Recipe
    from decant.pipeline.phases.cache_logits import Cached
    from decant.pipeline.phases.cost import Estimate, RankCost
    from decant.pipeline.phases.kinds import RecipePlan
    from decant.pipeline.runs.result import Result
    from decant.pipeline.tracking.log_to import LogTo


@click.command()
@recipe_options
@log_to_option
@as_json
def teacher(
    recipe: Recipe, base: Path, store: Store, device: str, log_to: tuple[str, ...], as_json: bool
) -> None:
    """Train the teacher, or take the weights that the recipe names."""
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.tracking.log_to import LogTo

    trackers = LogTo(log_to, base)
    made = [make_teacher(plan, device, trackers) for plan in _plans_of_teachers(plan_of(recipe, base, store))]
    trackers.say_if_unused()
    say(f"next: {recipe.command('cache-logits' if made else 'student')}")
    if as_json:
        print_json(made)


@click.command("cache-logits")
@recipe_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print what the cache would cost and when it pays for itself, and make nothing.",
)
@click.option(
    "--ranks",
    type=click.IntRange(1),
    metavar="N",
    help="With --dry-run: also print what each of N ranks of torchrun, or of N parts, would read, write and take.",
)
@click.option(
    "--max-error",
    type=click.FloatRange(0, 1),
    help="Of a sparse cache: keep the least number of outputs a row that leaves out at most this share of the "
    "teacher's mass, on average at every declared temperature; of draws, whose error √E‖p̂ − p‖² is at most this. Found "
    "on up to 2,000 samples.",
)
@click.option(
    "--part",
    type=PART,
    help="I/N: compute the I-th of N parts alone, as a job of an array does. Parts run in any order, at once or not, "
    "on every machine that sees the store; the one that finds all others written publishes the cache.",
)
@as_json
def cache_logits(
    recipe: Recipe,
    base: Path,
    store: Store,
    device: str,
    dry_run: bool,
    ranks: int | None,
    max_error: float | None,
    part: tuple[int, int] | None,
    as_json: bool,
) -> None:
    """Run the teacher once over the data and store its logits."""
    from decant.pipeline.phases.kinds import plan_of

    if dry_run and part is not None:
        raise click.UsageError("--part: a dry run is of the whole cache; leave one of both out")
    if part is not None and launched() is not None:
        raise click.UsageError("--part: the ranks of a job share the whole pass among them; leave it out")
    if ranks is not None and not dry_run:
        raise click.UsageError("--ranks belongs to --dry-run; torchrun starts ranks")
    if dry_run:
        leave_to_rank_0("cache-logits --dry-run")
    table: list[dict[str, Any]] = []
    if max_error is not None or (dry_run and sizes.is_sparse(recipe)):
        teachers = _plans_of_teachers(plan_of(recipe, base, store))
        recipe, table = sizes.with_fitting_size(recipe, teachers, device, max_error, not as_json)
    divided = not dry_run and (part is not None or launched() is not None)
    plan = plan_of(recipe, base, store, decode="as needed" if divided else "all")
    plans = [each for of_teacher in _plans_of_teachers(plan) for each in of_teacher.by_cache]
    if part is not None:
        caches = [_make_part(plan, device, part) for plan in plans]
    else:
        caches = [_estimate(plan, device, ranks) if dry_run else make_cache(plan, device) for plan in plans]
    caches = [{**cache, "sizes": table} for cache in caches] if table else caches
    missing = not all(cache.get("exists", True) for cache in caches)
    say(f"next: {recipe.command('cache-logits' if missing else 'student')}")
    if as_json:
        print_json(caches)


@click.command()
@recipe_options
@click.option(
    "--verify",
    type=click.Choice(["open", "lazy", "off"]),
    default="lazy",
    show_default=True,
    help="When to check the cache's checksums: all on opening, each block when it is first read, or never.",
)
@click.option(
    "--check-views",
    type=click.Choice(["sample", "all", "off"]),
    default="sample",
    show_default=True,
    help="Which inputs to compare with those of the teacher, by checksum: one of each batch, all, or none.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Train so many students side by side on this machine, in processes that divide its cores.",
)
@log_to_option
@as_json
def student(
    recipe: Recipe,
    base: Path,
    store: Store,
    device: str,
    verify: Literal["open", "lazy", "off"],
    check_views: Literal["sample", "all", "off"],
    jobs: int,
    log_to: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train students from the cache, and on labels alone."""
    settings = recipe.settings.student
    if jobs > 1 and (settings.parallel == "batch" or settings.batch_norm_ranks is not None):
        raise click.UsageError(
            '--jobs: trains whole students side by side; leave out student.parallel = "batch" and batch_norm_ranks'
        )
    with ranks_beside(min(jobs, settings.seeds * (1 + settings.baseline))):
        _train_students(recipe, base, store, device, verify, check_views, log_to, as_json)


def _train_students(
    recipe: Recipe,
    base: Path,
    store: Store,
    device: str,
    verify: Literal["open", "lazy", "off"],
    check_views: Literal["sample", "all", "off"],
    log_to: tuple[str, ...],
    as_json: bool,
) -> None:
    from decant.pipeline.phases.any_recipe import train_students
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.report import are_validated, compare, format_cells, headings
    from decant.pipeline.tracking.log_to import LogTo
    from decant.pipeline.training.device import pick_device

    trackers = LogTo(log_to, base)
    plan, students = plan_of(recipe, base, store), []
    for result, found in train_students(
        plan, pick_device(device), verify=verify, check_inputs=check_views, log_to=trackers
    ):
        _print_result(result, found)
        students.append(result)
    if not is_first():  # rank 0 has those of all ranks
        return
    students.sort(key=_order)
    trackers.say_if_unused()
    rows = compare(recipe, base, students)
    if as_json:
        print_json(
            [{**_network(row.first), "seeds": [_run(result) for result in row.results]} for row in rows]
        )
    else:
        print_table(headings(rows), [format_cells(row, are_validated(rows)) for row in rows])
    say(f"next: {recipe.command('report')}")


@click.command()
@recipe_options
@as_json
def evaluate(recipe: Recipe, base: Path, store: Store, device: str, as_json: bool) -> None:
    """Measure every finished network again, from its weights, on the test part."""
    from decant.pipeline.phases.any_recipe import evaluate_runs
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.training.device import pick_device

    results = list(evaluate_runs(plan_of(recipe, base, store), pick_device(device)))
    if as_json:
        print_json([{**_network(result), **_run(result)} for result in results])
    else:
        shown = formats(results[0].metrics)
        rows = [
            (
                result.network.short,
                result.kind,
                str(result.seed),
                *(figure.text(result.metrics) for figure in shown),
            )
            for result in results
        ]
        print_table(("network", "kind", "seed", *(figure.name for figure in shown)), rows)
    say(f"next: {recipe.command('report')}")


def _plans_of_teachers(plan: RecipePlan) -> tuple[RecipePlan, ...]:
    """A plan for each teacher; none if the recipe names its cache, which is printed."""
    given = plan.settings.cache.from_
    if given is None:
        return plan.by_teacher
    from decant.cache.io.redaction import redacted

    names = given if isinstance(given, str) else ", ".join(given)
    say(f"cache.from is {redacted(names)}: no teacher and no cache of this recipe's own are needed")
    return ()


def _order(result: Result) -> tuple[int, bool]:
    """The place of a student among all: those of one seed after those of the one before, labels-only first."""
    return result.seed, result.kind != "labels"


def _network(result: Result) -> dict[str, Any]:
    """The JSON of what the runs of all seeds have in common."""
    return {
        "network": {"name": result.network.name, "args": result.network.args},
        "kind": result.kind,
        "objective": result.objective,
        "parameters": result.parameters,
        "weights_bytes": result.weights_bytes,
    }


def _run(result: Result) -> dict[str, Any]:
    """The JSON of one run."""
    return {
        "seed": result.seed,
        "metrics": result.metrics,
        **({} if result.validation is None else {"validation": result.validation}),
        **({} if result.kept_epoch is None else {"kept_epoch": result.kept_epoch}),
        "latency_ms": result.latency_ms,
        "seconds": result.seconds,
        "folder": result.folder,
    }


def _print_result(result: Result, found: bool) -> None:
    state = "found" if found else "made"
    agreement = result.metrics.get("agreement")
    agrees = "" if agreement is None else f", agrees with the teacher on {percent(agreement)}"
    seed = "" if result.kind == "teacher" else f", seed {result.seed}"
    figure = headline(result.any_metrics)
    validated = "" if result.validation is None else f", validation {figure.text(result.validation)}"
    epoch = "" if result.kept_epoch is None else f", of epoch {result.kept_epoch:,}"
    say(
        f"{state} {result.folder}: {result.kind}, {result.network}{seed}, {result.parameters:,} parameters, "
        f"test {figure.name} {figure.text(result.metrics)}{validated}{agrees}{epoch}"
    )


def make_teacher(plan: RecipePlan, device: str, log_to: LogTo) -> dict[str, Any]:
    """Makes or finds a teacher and prints it; returns the same for `--json`."""
    from decant.pipeline.phases import any_recipe
    from decant.pipeline.training.device import pick_device

    result, found = any_recipe.make_teacher(plan, pick_device(device), log_to)
    _print_result(result, found)
    return {**_network(result), **_run(result), "found": found}


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


def _make_part(plan: RecipePlan, device: str, part: tuple[int, int]) -> dict[str, Any]:
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


def _estimate(plan: RecipePlan, device: str, ranks: int | None) -> dict[str, Any]:
    """Prints what a cache would cost; returns the same for `--json`."""
    from decant.pipeline.phases.any_recipe import estimate
    from decant.pipeline.training.device import pick_device

    cost = estimate(plan, pick_device(device), ranks=ranks)
    _print_estimate(cost, plan.of_cache)
    return {
        **_split(plan),
        **asdict(cost),
        "pays_after_epochs": cost.pays_after_epochs,
    }


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
        f"cache has paid for itself after {cost.pays_after_epochs:,.0f} epochs, and this recipe's distilled "
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
    return f"; {views:,} views taken over from a cache with another number of them" if views else ""


def _print_waiting(holder: str) -> None:
    say(f"waiting: {holder} is building this cache", err=True)
