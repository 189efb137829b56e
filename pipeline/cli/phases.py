"""The phases as commands: `decant teacher`, `cache-logits`, `student` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from decant.pipeline.cli import sizes
from decant.pipeline.cli.made_caches import estimate, make_cache, make_part
from decant.pipeline.cli.made_networks import make_teacher, network_json, print_result, run_json
from decant.pipeline.cli.options import (
    PART,
    as_json,
    leave_to_rank_0,
    log_to_option,
    print_json,
    print_table,
    recipe_options,
    say,
)
from decant.pipeline.config.tasks import formats
from decant.pipeline.ranks.launch import is_first, launched
from decant.pipeline.ranks.local_ranks import ranks_beside

if TYPE_CHECKING:
    from decant.cache import Store
    from decant.pipeline.config.recipe import Recipe
    from decant.pipeline.phases.datasets import Decode
    from decant.pipeline.phases.kinds import RecipePlan
    from decant.pipeline.runs.result import Result


@click.command()
@recipe_options
@log_to_option
@as_json
def teacher(
    recipe: Recipe, base: Path, store: Store, device: str, log_to: tuple[str, ...], as_json: bool
) -> None:
    """Train the teacher, or take the weights of the recipe."""
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.tracking.log_to import LogTo

    trackers, server = LogTo(log_to, base), recipe.settings.teacher.server
    plans = _plans_of_teachers(plan_of(recipe, base, store))
    if plans and server is not None:
        say(f"the teacher is {server.model or 'the model'} behind {server.url}: there is nothing to train")
    made = [make_teacher(plan, device, trackers) for plan in plans if server is None]
    trackers.say_if_unused()
    say(f"next: {recipe.command('cache-logits' if plans else 'student')}")
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
        teachers = _plans_of_teachers(plan_of(recipe, base, store, decode="at once"))
        recipe, table = sizes.with_fitting_size(recipe, teachers, device, max_error, not as_json)
    divided = not dry_run and (part is not None or launched() is not None)
    decode: Decode = "at once" if dry_run else "as needed" if divided else "ahead"
    plan = plan_of(recipe, base, store, decode=decode)
    plans = [each for of_teacher in _plans_of_teachers(plan) for each in of_teacher.by_cache]
    if part is not None:
        caches = [make_part(plan, device, part) for plan in plans]
    else:
        caches = [estimate(plan, device, ranks) if dry_run else make_cache(plan, device) for plan in plans]
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
@click.option(
    "--together/--no-together",
    default=False,
    help="Train the seeds in one loop, where network and loss allow it: quicker on a GPU, which one small network "
    "leaves mostly idle.",
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
    together: bool,
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
        from decant.pipeline.phases.any_recipe import train_students
        from decant.pipeline.phases.kinds import plan_of
        from decant.pipeline.tracking.log_to import LogTo
        from decant.pipeline.training.device import pick_device

        trackers = LogTo(log_to, base)
        plan, students = plan_of(recipe, base, store), []
        for result, found in train_students(
            plan,
            pick_device(device),
            verify=verify,
            check_inputs=check_views,
            log_to=trackers,
            together=together,
        ):
            print_result(result, found)
            students.append(result)
        if is_first():  # rank 0 has those of all ranks
            trackers.say_if_unused()
            _print_students(recipe, base, students, as_json)


def _print_students(recipe: Recipe, base: Path, students: list[Result], as_json: bool) -> None:
    """Students after their teachers, those of one seed after those of the one before, labels-only first."""
    from decant.pipeline.report import are_validated, compare, format_cells, headings

    students.sort(key=lambda result: (result.seed, result.kind != "labels"))
    rows = compare(base, students)
    if as_json:
        print_json([{**network_json(row.first), "seeds": list(map(run_json, row.results))} for row in rows])
    else:
        print_table(headings(rows), [format_cells(row, are_validated(rows)) for row in rows])
    say(f"next: {recipe.command('report')}")


@click.command()
@recipe_options
@as_json
def evaluate(recipe: Recipe, base: Path, store: Store, device: str, as_json: bool) -> None:
    """Measure every finished network again on the test part.

    Each is read from its weights.
    """
    from decant.pipeline.phases.any_recipe import evaluate_runs
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.training.device import pick_device

    plan = plan_of(recipe, base, store, decode="test part ahead")
    results = list(evaluate_runs(plan, pick_device(device)))
    if as_json:
        print_json([{**network_json(result), **run_json(result)} for result in results])
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
