"""`decant`: one command a phase. A command parses, calls one function and words the result; nothing heavy is
imported before it runs.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cache_cli import cache
from pipeline.deploy_cli import export, predict
from pipeline.options import percent, print_table, recipe_options
from pipeline.tasks import figures, headline

if TYPE_CHECKING:
    from pipeline.recipe import Recipe
    from pipeline.runs import Result


def main() -> None:
    """Runs the command line; a mistake that a person can make is one clear message and exit code 1."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # where a recipe's own module:function may lie
    try:
        code = decant.main(standalone_mode=False)
    except click.exceptions.Abort:
        _interrupted()
    except KeyboardInterrupt:
        _interrupted()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if not _expected(error):
            raise
        click.echo(f"decant: {error}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _expected(error: Exception) -> bool:
    """Whether an error is of a kind that is worded for a person."""
    from cache.errors import CacheError
    from pipeline.errors import PipelineError

    return isinstance(error, (PipelineError, CacheError, OSError))


def _interrupted() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = shlex.join(["decant", *sys.argv[1:]])
    click.echo(f"\ndecant: interrupted; everything made so far is kept. Go on with: {command}", err=True)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="decant")
def decant() -> None:
    """Distil a network without running the teacher twice.

    Its logits are cached once, in a file that can be shared; students train from the file.
    """


decant.add_command(cache)
decant.add_command(export)
decant.add_command(predict)


@decant.command()
@recipe_options
def teacher(recipe: Recipe, base: Path, store: Any, device: str) -> None:
    """Train the teacher, or take the weights that the recipe names."""
    if _given_cache(recipe):
        return
    from pipeline.teacher import make_teacher
    from pipeline.training import pick_device

    for one in recipe.by_teacher:
        result, found = make_teacher(one, base, pick_device(device))
        _say_result(result, found)
    click.echo(f"next: {recipe.command('cache-logits')}")


@decant.command("cache-logits")
@recipe_options
@click.option(
    "--dry-run", is_flag=True, help="Only say what the cache would cost, and when it pays for itself."
)
def cache_logits(recipe: Recipe, base: Path, store: Any, device: str, dry_run: bool) -> None:
    """Run the teacher once over the data and store its logits."""
    if _given_cache(recipe):
        return
    from pipeline import cache_logits as phase
    from pipeline.remembered import remember_cache
    from pipeline.training import pick_device

    for one in recipe.by_teacher:
        if dry_run:
            _say_estimate(phase.estimate(one, base, store, pick_device(device)))
            continue
        cached = phase.cache_logits(one, base, store, pick_device(device), _say_waiting)
        remember_cache(one, base, cached.cache.path)
        _say_cache(cached)
    if not dry_run:
        click.echo(f"next: {recipe.command('student')}")


def _say_cache(cached: Any) -> None:
    cache = cached.cache
    if cached.seconds is None:
        click.echo(f"found {cache.path}: nothing to do, no teacher was loaded")
    else:
        click.echo(f"made {cache.path}: {cached.rows:,} rows in {cached.seconds:,.1f} s{_taken_over(cached)}")
    views = "" if cache.num_views == 1 else f"{cache.num_views:,} views of "
    part = "" if cached.measured == cache.num_views * cache.num_samples else f" of {cached.measured:,} rows"
    rate = "" if not cached.seconds else f", {cached.rows / cached.seconds:,.0f} samples/s"
    figure, outputs = headline(cached.metrics), "classes" if cache.manifest.num_targets is None else "targets"
    click.echo(
        f"  {views}{cache.num_samples:,} samples × {cache.num_outputs:,} {outputs}, {cache.manifest.dtype.name}, "
        f"{cache.path.stat().st_size:,} bytes{rate}; the teacher's {figure.name} on these labels, from the file: "
        f"{figure.text(cached.metrics)}{part}"
    )


@decant.command()
@recipe_options
@click.option(
    "--verify",
    type=click.Choice(["open", "lazy", "off"]),
    default="lazy",
    show_default=True,
    help="When the cache's checksums are checked: all on opening, each block when first read, or never.",
)
@click.option(
    "--check-views",
    type=click.Choice(["sample", "all", "off"]),
    default="sample",
    show_default=True,
    help="Whose pixels are compared with what the teacher saw: one input a batch, every input, or none.",
)
def student(recipe: Recipe, base: Path, store: Any, device: str, verify: Any, check_views: Any) -> None:
    """Train students from the cache, and on labels alone."""
    from pipeline.report import compare, format_cells, headings
    from pipeline.student import train_students
    from pipeline.training import pick_device

    students = []
    for result, found in train_students(
        recipe, base, store, pick_device(device), verify=verify, check_inputs=check_views
    ):
        _say_result(result, found)
        students.append(result)
    rows = compare(recipe, base, students)
    print_table(headings(rows), [format_cells(row) for row in rows])
    click.echo(f"next: {recipe.command('report')}")


@decant.command()
@recipe_options
def evaluate(recipe: Recipe, base: Path, store: Any, device: str) -> None:
    """Measure every finished network again, from its weights, on the test part."""
    from pipeline.evaluation import evaluate_runs
    from pipeline.training import pick_device

    results = list(evaluate_runs(recipe, base, pick_device(device)))
    shown = figures(results[0].metrics)
    rows = [
        (str(found.network), found.kind, str(found.seed), *(figure.text(found.metrics) for figure in shown))
        for found in results
    ]
    print_table(("network", "kind", "seed", *(figure.name for figure in shown)), rows)


@decant.command()
@recipe_options
def report(recipe: Recipe, base: Path, store: Any, device: str) -> None:
    """Print the table of a recipe's networks; leave it as Markdown, with the curves as a picture."""
    from pipeline.report import format_cells, headings, make_report

    made = make_report(recipe, base)
    print_table(headings(made.rows), [format_cells(row) for row in made.rows])
    for line in made.gap_closed:
        click.echo(line)
    click.echo(f"made {made.table} and {made.curves}")


@decant.command()
def objectives() -> None:
    """List what a student can learn from, with formulas and defaults."""
    from pipeline.catalogue import Entry, catalogue

    print_table(Entry._fields, catalogue())


def _given_cache(recipe: Recipe) -> bool:
    """Whether the recipe names its cache, so that it has no teacher of its own; says so."""
    given = recipe.settings.cache.from_
    if given is not None:
        names = given if isinstance(given, str) else ", ".join(given)
        click.echo(f"cache.from is {names}: no teacher and no cache of this recipe's own are needed")
        click.echo(f"next: {recipe.command('student')}")
    return given is not None


def _say_result(result: Result, found: bool) -> None:
    state = "found" if found else "made"
    agreement = result.metrics.get("agreement")
    agrees = "" if agreement is None else f", agrees with the teacher on {percent(agreement)}"
    seed = "" if result.kind == "teacher" else f", seed {result.seed}"
    figure = headline(result.metrics)
    click.echo(
        f"{state} {result.folder}: {result.kind}, {result.network}{seed}, {result.parameters:,} parameters, "
        f"test {figure.name} {figure.text(result.metrics)}{agrees}"
    )


def _say_estimate(cost: Any) -> None:
    if cost.exists:
        click.echo(f"found {cost.path}: nothing to do")
    else:
        click.echo(
            f"would make {cost.path}: {cost.bytes:,} bytes, about {cost.seconds:,.3g} s of teacher{_taken_over(cost)}"
        )
    click.echo(
        f"  a live teacher would add about {cost.live_seconds_an_epoch:,.3g} s to every student epoch: the "
        f"cache has paid for itself after {cost.pays_after_epochs:,.0f} epochs, and this recipe's distilled "
        f"students train for {cost.student_epochs:,}"
    )


def _taken_over(made: Any) -> str:
    """Of a cache or its estimate."""
    views = made.views_taken_over
    return f"; {views:,} views taken over from a cache with another number of them" if views else ""


def _say_waiting(holder: str) -> None:
    click.echo(f"waiting: {holder} is building this cache", err=True)
