"""`decant status`: which phases of a recipe are done, running, interrupted, stale, damaged or missing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decant.pipeline.cli.options import as_json, duration, print_json, recipe_options
from decant.pipeline.support.terminal import console, printable

if TYPE_CHECKING:
    from rich.text import Text

    from decant.cache import Store
    from decant.pipeline.config.recipe import Recipe
    from decant.pipeline.status import Overview, Phase

_COLOURS = {"done": "green", "running": "cyan", "damaged": "red", "missing": ""}


@click.command()
@recipe_options
@click.option("--watch", is_flag=True, help="Keep printing until every phase is done, or Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Interval of --watch.",
)
@as_json
def status(
    recipe: Recipe, base: Path, store: Store, device: str, watch: bool, every: float, as_json: bool
) -> None:
    """Show how far the phases of a recipe are.

    Each is done, running, interrupted, stale or missing. Nothing is made. A stale phase was made with other settings,
    which are listed. With --watch --json, each change is one line of JSON.
    """
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.status import Overview

    overview = Overview(plan_of(recipe, base, store, decode="none"))
    if watch:
        with contextlib.suppress(KeyboardInterrupt), _screen(recipe, as_json) as show:
            _follow(overview, show, every)
    elif as_json:
        print_json(_as_json(recipe, overview.phases()))
    else:
        _print(_format(recipe, overview.phases()))


def _follow(overview: Overview, show: Callable[[Sequence[Phase]], None], every: float) -> None:
    """Calls `show` whenever the phases have changed, until all are done."""
    shown: Sequence[Phase] = ()
    while True:
        phases = overview.phases()
        if phases != shown:
            show(phases)
        if all(phase.state == "done" for phase in phases):
            return
        shown = phases
        time.sleep(every)


@contextlib.contextmanager
def _screen(recipe: Recipe, as_json: bool) -> Iterator[Callable[[Sequence[Phase]], None]]:
    """Yields a function that shows the phases: as a line of JSON, in place on a terminal, or else below each other."""
    from rich.live import Live

    if as_json:
        yield lambda phases: print_json(_as_json(recipe, phases), indent=None)
    elif not sys.stdout.isatty() or console().is_dumb_terminal:
        yield lambda phases: _print(_format(recipe, phases), end="\n\n")
    else:
        with Live(console=console(), auto_refresh=False) as live:
            yield lambda phases: live.update(_format(recipe, phases), refresh=True)


def _print(text: Text, end: str = "\n") -> None:
    console().print(text, end=end, soft_wrap=True)


def _format(recipe: Recipe, phases: Sequence[Phase]) -> Text:
    """One line for each phase with its details below, and the next command."""
    from rich.text import Text

    from decant.pipeline.status import next_command

    text, width = Text(), max(len(phase.name) for phase in phases)
    for phase in phases:
        first, *more = _lines(phase)
        text.append(f"{phase.name:<{width}}  ")
        text.append(phase.state, _COLOURS.get(phase.state, "yellow"))
        text.append(f"{'':<{13 - len(phase.state)}}{printable(first)}".rstrip() + "\n")
        for line in more:
            text.append(f"{'':<{width}}  {printable(line)}\n")
    command, after = next_command(recipe, phases)
    return text.append(f"next{', once what is running has ended' if after else ''}: {printable(command)}")


def _lines(phase: Phase) -> Iterator[str]:
    """The details of a phase beside its name and state, line by line; the first line may be empty."""
    seeds = "" if phase.seeds is None else f"{len(phase.results):,} of {phase.seeds:,} seeds"
    known = [seeds, phase.figure, _progress(phase), phase.holder]
    if phase.state == "done":
        when = phase.finished  # of a teacher behind a server there is none
        finished = "" if when is None else f"finished {datetime.fromtimestamp(when):%Y-%m-%d %H:%M}"
        known += [phase.detail, finished]
    elif phase.changed:
        known.append("made with other settings")
    yield ", ".join(part for part in known if part)
    if phase.outdated is not None and phase.outdated.path != phase.path:
        yield f"the nearest is {phase.outdated.path}"
    elif phase.path is not None and phase.state != "missing":
        yield str(phase.path)
    if phase.state != "done":
        yield from phase.detail.splitlines()
    yield from map(str, phase.changed)


def _progress(phase: Phase) -> str:
    progress = phase.progress
    if progress is None:
        return ""
    seed = "" if progress.seed is None else f"seed {progress.seed}: "
    left = _left(phase)
    remaining = "" if left is None else f", about {duration(left)} left"
    return f"{seed}{progress.done:,} of {progress.total:,} {progress.unit}{remaining}"


def _left(phase: Phase) -> float | None:
    """Seconds left of a running phase; None of any other."""
    return phase.progress.seconds_left if phase.progress and phase.state == "running" else None


def _as_json(recipe: Recipe, phases: Sequence[Phase]) -> dict[str, Any]:
    from decant.pipeline.status import next_command

    return {"phases": [_entry(phase) for phase in phases], "next": next_command(recipe, phases)[0]}


def _entry(phase: Phase) -> dict[str, Any]:
    """The JSON of a phase; what is not known or does not apply is null."""
    when = None if phase.finished is None else datetime.fromtimestamp(phase.finished, UTC)
    return {
        "name": phase.name,
        "state": phase.state,
        "path": None if phase.path is None else str(phase.path),
        "figure": phase.figure or None,
        "finished": None if when is None else when.isoformat(timespec="seconds"),
        "seeds": None if phase.seeds is None else {"done": len(phase.results), "asked": phase.seeds},
        "progress": phase.progress and {**asdict(phase.progress), "seconds_left": _left(phase)},
        "process": phase.holder,
        "nearest": None if phase.outdated is None else str(phase.outdated.path),
        "changed": [
            {"setting": one.field, "expected": one.expected, "found": one.found} for one in phase.changed
        ],
        "detail": phase.detail or None,
    }
