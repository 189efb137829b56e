"""`decant`: one command a phase. A command parses, calls one function and words the result; nothing heavy is
imported before it runs.
"""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.recipe import Recipe
    from pipeline.runs import Result


def main() -> None:
    """Runs the command line; a mistake that a person can make is one clear message and exit code 1."""
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
    command = " ".join(["decant", *sys.argv[1:]])
    click.echo(f"\ndecant: interrupted; everything made so far is kept. Go on with: {command}", err=True)
    sys.exit(1)


def _recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--recipe, --set, --runs, --store and --device, handed on as (recipe, base folder, store, device)."""

    @click.option(
        "--recipe",
        "-r",
        default="digits",
        show_default=True,
        help="A shipped recipe's name, or a .toml file.",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="SECTION.KEY=VALUE",
        help="Override one setting; may repeat.",
    )
    @click.option(
        "--runs",
        default="runs",
        show_default=True,
        type=click.Path(path_type=Path),
        help="Where runs are kept.",
    )
    @click.option(
        "--store",
        default=None,
        type=click.Path(path_type=Path),
        help="Where caches are kept.  [default: $DECANT_STORE, or caches]",
    )
    @click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
    @functools.wraps(command)
    def wrapped(
        recipe: str, overrides: Sequence[str], runs: Path, store: Path | None, device: str, **rest: Any
    ) -> Any:
        from cache.store import Store
        from pipeline.recipe import load

        loaded = load(recipe, overrides)
        return command(loaded, runs / loaded.name, Store(store), device, **rest)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="decant")
def decant() -> None:
    """Distil a network without running the teacher twice.

    Its logits are cached once, in a file that can be shared; students train from the file.
    """


@decant.command()
@_recipe_options
def teacher(recipe: Recipe, base: Path, store: Any, device: str) -> None:
    """Train the teacher, or take the weights that the recipe names."""
    from pipeline.teacher import make_teacher
    from pipeline.training import pick_device

    result, found = make_teacher(recipe, base, pick_device(device))
    _say_result(result, found)
    click.echo(f"next: {recipe.command('cache-logits')}")


@decant.command("cache-logits")
@_recipe_options
@click.option(
    "--dry-run", is_flag=True, help="Only say what the cache would cost, and when it pays for itself."
)
def cache_logits(recipe: Recipe, base: Path, store: Any, device: str, dry_run: bool) -> None:
    """Run the teacher once over the data and store its logits."""
    from pipeline import cache_logits as phase
    from pipeline.training import pick_device

    if dry_run:
        _say_estimate(phase.estimate(recipe, base, store, pick_device(device)))
        return
    cached = phase.cache_logits(recipe, base, store, pick_device(device), _say_waiting)
    cache = cached.cache
    if cached.seconds is None:
        click.echo(f"found {cache.path}: nothing to do, no teacher was loaded")
    else:
        click.echo(f"made {cache.path}: {cached.rows:,} rows in {cached.seconds:,.1f} s")
    views = "" if cache.num_views == 1 else f"{cache.num_views:,} views of "
    rate = "" if not cached.seconds else f", {cached.rows / cached.seconds:,.0f} samples/s"
    click.echo(
        f"  {views}{cache.num_samples:,} samples × {cache.num_classes:,} classes, {cache.manifest.dtype.name}, "
        f"{cache.path.stat().st_size:,} bytes{rate}; the teacher's top-1 on these labels, from the file: "
        f"{_percent(cached.metrics.get('top1'))}"
    )
    click.echo(f"next: {recipe.command('student')}")


@decant.command()
@_recipe_options
@click.option(
    "--verify",
    type=click.Choice(["open", "lazy", "off"]),
    default="lazy",
    show_default=True,
    help="When the cache's checksums are checked: all on opening, each block when it is first read, or never.",
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
    from pipeline.student import train_students
    from pipeline.training import pick_device

    for result, found in train_students(
        recipe, base, store, pick_device(device), verify=verify, check_inputs=check_views
    ):
        _say_result(result, found)
    click.echo(f"next: {recipe.command('report')}")


@decant.command()
@_recipe_options
def evaluate(recipe: Recipe, base: Path, store: Any, device: str) -> None:
    """Measure every finished network again, from its weights, on the test part."""
    from pipeline.evaluation import evaluate_runs
    from pipeline.training import pick_device

    columns = ("network", "kind", "seed", "top-1", "top-5", "loss", "calibration error", "agreement")
    rows = []
    for result in evaluate_runs(recipe, base, pick_device(device)):
        found = result.metrics
        shares = [_percent(found.get(name)) for name in ("top1", "top5", "ece", "agreement")]
        loss = f"{found['loss']:.4f}" if "loss" in found else "–"
        rows.append((str(result.network), result.kind, str(result.seed), *shares[:2], loss, *shares[2:]))
    _print_table(columns, rows)


@decant.command()
@_recipe_options
def report(recipe: Recipe, base: Path, store: Any, device: str) -> None:
    """Print the table of a recipe's networks; leave it as Markdown, with the curves as a picture."""
    from pipeline.report import HEADINGS, format_cells, make_report

    made = make_report(recipe, base)
    _print_table(HEADINGS, [format_cells(row) for row in made.rows])
    if made.gap_closed:
        click.echo(made.gap_closed)
    click.echo(f"made {made.table} and {made.curves}")


def _say_result(result: Result, found: bool) -> None:
    state = "found" if found else "made"
    agreement = result.metrics.get("agreement")
    agrees = "" if agreement is None else f", agrees with the teacher on {_percent(agreement)}"
    seed = "" if result.kind == "teacher" else f", seed {result.seed}"
    click.echo(
        f"{state} {result.folder}: {result.kind}, {result.network}{seed}, {result.parameters:,} parameters, "
        f"test top-1 {_percent(result.metrics.get('top1'))}{agrees}"
    )


def _say_estimate(cost: Any) -> None:
    if cost.exists:
        click.echo(f"found {cost.path}: nothing to do")
    else:
        click.echo(f"would make {cost.path}: {cost.bytes:,} bytes, about {cost.seconds:,.1f} s of teacher")
    click.echo(
        f"  a live teacher would add about {cost.live_seconds_an_epoch:,.1f} s to every student epoch: the cache has paid "
        f"for itself after {cost.pays_after_epochs:,.0f} epochs, and this recipe's students train for "
        f"{cost.student_epochs:,}"
    )


def _say_waiting(holder: str) -> None:
    click.echo(f"waiting: {holder} is building this cache", err=True)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f} %"


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 200))
    console.print(table)
