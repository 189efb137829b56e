"""`decant report`: the table, the page and the pictures of finished networks."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import FOLDER, PATH
from decant.pipeline.cli.options import as_json, print_json, print_table, recipe_options, say

if TYPE_CHECKING:
    from decant.cache import Store
    from decant.pipeline.config.recipe import Recipe
    from decant.pipeline.report.output import Report
    from decant.pipeline.report.subject import Subject


@click.command()
@click.argument("paths", metavar="[RUN]...", nargs=-1, type=PATH, shell_complete=completion.runs)
@recipe_options
@click.option(
    "--output",
    type=FOLDER,
    help="Folder to write to.  [default: the recipe's run folder; RUN; the current folder for several RUNs]",
)
@click.option(
    "--tensorboard", is_flag=True, help="Also write the curves of every run as TensorBoard event files."
)
@as_json
def report(
    paths: tuple[Path, ...],
    recipe: Recipe,
    base: Path,
    store: Store,
    device: str,
    output: Path | None,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Compare networks: a table, curves, a page for any browser.

    RUN is the folder of a run, a folder of runs, or that of a sweep; without RUN, all runs of the recipe are compared.
    Writes report.md, and with the extra `report` report.html and curves.png.
    """
    from decant.pipeline.report.output import make_report
    from decant.pipeline.report.sweep_subject import is_sweep

    if len(paths) == 1 and is_sweep(paths[0]):
        _report_sweep(paths[0], output, as_json)
        return
    subject, folder = _subject(paths, recipe, base, store, device)
    made = make_report(subject, output or folder)
    events: list[Path] = []
    if tensorboard:
        from decant.pipeline.report.tensorboard import write_events

        events = write_events(subject.results)
    if as_json:
        print_json({**made.as_json(), "tensorboard": events})
    else:
        _print_report(made)
        if events:
            command = shlex.join(["tensorboard", "--logdir", os.path.commonpath(events)])
            say(f"made {len(events):,} folders of events; next: {command}")


def _subject(
    paths: tuple[Path, ...], recipe: Recipe, base: Path, store: Store, device: str
) -> tuple[Subject, Path]:
    """The networks to report, and the default folder to write to."""
    from decant.pipeline.report.subject import of_recipe, of_runs
    from decant.pipeline.training.device import pick_device

    if not paths:
        return of_recipe(recipe, base, store, pick_device(device)), base
    source = click.get_current_context().get_parameter_source("recipe")
    if source is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("give either RUNs or --recipe: each run keeps the recipe that made it")
    subject = of_runs(paths, store, pick_device(device))
    folder = paths[0] if paths[0].is_dir() else paths[0].parent  # its result.json
    return subject, folder if len(paths) == 1 else Path()


def _report_sweep(folder: Path, output: Path | None, as_json: bool) -> None:
    from decant.pipeline.report.output import make_sweep_page
    from decant.pipeline.report.sweep_subject import SweepSubject
    from decant.pipeline.sweeps.wording import in_words

    subject = SweepSubject.of(folder)
    page = make_sweep_page(subject, output or folder)
    for line in in_words(subject.record):
        say(line)
    say(f"made {page}")
    say(f"open it in any browser: {page.absolute().as_uri()}")
    if as_json:
        print_json({"files": [page]})


def _of_missing(missing: Sequence[str], which: str) -> Iterator[str]:
    """What is missing for one reason, in a line; further lines of a reason, as fields that differ, are indented."""
    parts = dict[str, list[str]]()
    for part, _, reason in (one.partition(": ") for one in missing):
        parts.setdefault(reason, []).append(part)
    for reason, names in parts.items():
        first, *more = reason.split("\n")
        yield f"{which}: {', '.join(names)}: {first}"
        yield from (f"  {line.strip()}" for line in more)


def _print_report(made: Report) -> None:
    from decant.pipeline.report import are_validated, format_cells, headings

    validated = are_validated(made.rows)
    print_table(headings(made.rows), [format_cells(row, validated) for row in made.rows])
    for gain in made.gains:
        say(gain)
    for line in made.unfinished:
        say(line)
    for line in _of_missing(made.missing, "not made" if made.page is None else "not on the page"):
        say(line)
    say(f"made {', '.join(map(str, made.files))}")
    if made.page is not None:
        say(f"open it in any browser: {made.page.absolute().as_uri()}")
