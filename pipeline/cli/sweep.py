"""`decant sweep`: many students of one cache, the best chosen by the validation part and measured on the test part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.options import as_json, command_line, duration, print_json, recipe_options, say

if TYPE_CHECKING:
    from decant.cache import Store
    from decant.pipeline.config.recipe import Recipe
    from decant.pipeline.sweeps.definition import Sweep
    from decant.pipeline.sweeps.record import StageRecord, SweepRecord, TrialRecord


@click.command()
@recipe_options
@click.option(
    "--over",
    multiple=True,
    metavar="SECTION.KEY=VALUES",
    shell_complete=completion.settings,
    help="A setting to vary: a,b,c, or A..B, or log:A..B; may be given several times. Replaces sweep.over.",
)
@click.option(
    "--trials", type=click.IntRange(1), help="Students to choose from.  [default: 20, or the whole grid]"
)
@click.option(
    "--seeds", type=click.IntRange(1), help="Fresh students to measure on the test part.  [default: 3]"
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option(
    "--sampler", type=click.Choice(["tpe", "random", "grid"]), help="How settings are drawn.  [default: tpe]"
)
@click.option(
    "--pruner",
    type=click.Choice(["none", "hyperband"]),
    help="Whether trials that fall behind are stopped early.  [default: none]",
)
@click.option(
    "--metric",
    metavar="NAME",
    help="Choose by this on the validation part, as kl or loss.  [default: the first shown]",
)
@click.option("--build", is_flag=True, help="Make teacher and cache first, where they are missing.")
@click.option(
    "--worker", metavar="NAME", hidden=True, help="Run trials of a sweep that another process, NAME, shows."
)
@as_json
def sweep(
    recipe: Recipe,
    base: Path,
    store: Store,
    device: str,
    over: tuple[str, ...],
    trials: int | None,
    seeds: int | None,
    jobs: int,
    sampler: str | None,
    pruner: str | None,
    metric: str | None,
    build: bool,
    worker: str | None,
    as_json: bool,
) -> None:
    """Train many students from one cache, and choose settings.

    Settings are chosen by the validation part, data.validation, and the best are measured on the test part once.
    Killed, the same command goes on; run at once on several machines that see the folder of runs, it is one sweep.
    """
    from decant.pipeline.config.recipe import overridden
    from decant.pipeline.errors import ModelError
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.ranks.launch import is_first, launched
    from decant.pipeline.support.plugins import optional
    from decant.pipeline.sweeps.definition import Sweep
    from decant.pipeline.training.device import devices_in_turn

    given = {
        "over": list(over) or None,
        "trials": trials,
        "seeds": seeds,
        "sampler": sampler,
        "pruner": pruner,
        "metric": metric,
    }
    changed = [f"sweep.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    if recipe.settings.sweep is not None or over:
        recipe = overridden(recipe, changed)
    planned = Sweep.of(plan_of(recipe, base, store))
    optional("optuna", "sweep", ModelError)
    if worker is not None:
        _work(planned, device, worker_of=worker)
        return
    rank = launched()
    if rank is not None:
        if build or jobs > 1:
            raise click.UsageError(
                f"--{'build' if build else 'jobs'}: each rank of this job runs trials of the sweep; leave it out"
            )
        device = devices_in_turn(device, rank.local_size)[rank.local_rank]
    if rank is not None and not is_first():
        _work(planned, device)
        return
    if build:
        _build(planned, device)
    record = _run(planned, _words(recipe), device, jobs)
    _print_end(planned, record, as_json)


def _work(planned: Sweep, device: str, worker_of: str | None = None) -> None:
    """Runs what no other process of the sweep does, and says nothing but on stderr. `worker_of` is the process that it
    ends with.
    """
    from decant.pipeline.sweeps.kinds import students_of
    from decant.pipeline.sweeps.record import running
    from decant.pipeline.sweeps.stages import Stages
    from decant.pipeline.sweeps.workers import end_with_parent
    from decant.pipeline.training.device import pick_device

    students = students_of(planned, pick_device(device))
    stages = Stages(planned, students)
    if worker_of is not None:
        stages = replace(stages, command=worker_of, alive=end_with_parent())
    with running(planned.folder):
        stages.run()


def _build(planned: Sweep, device: str) -> None:
    """Makes teachers and caches, unless the recipe names its caches."""
    from decant.pipeline.cli.made_caches import make_cache
    from decant.pipeline.cli.made_networks import make_teacher
    from decant.pipeline.tracking.log_to import LogTo

    if planned.recipe.settings.cache.from_ is not None:
        return
    for plan in planned.plan.by_teacher if planned.recipe.settings.teacher.server is None else ():
        make_teacher(plan, device, LogTo())
    for one in planned.caches:
        make_cache(one, device)


def _run(planned: Sweep, words: Sequence[str], device: str, jobs: int) -> SweepRecord:
    """Runs the sweep to its end, here or in so many processes."""
    from decant.pipeline.sweeps.conclusion import conclude
    from decant.pipeline.sweeps.kinds import students_of
    from decant.pipeline.sweeps.readiness import check
    from decant.pipeline.sweeps.record import running
    from decant.pipeline.sweeps.stages import Stages
    from decant.pipeline.sweeps.workers import run_workers
    from decant.pipeline.training.device import pick_device

    students, told = students_of(planned, pick_device(device)), Trials()
    check(planned, students)
    say(f"sweep of {planned.trials:,} trials in {planned.folder}{students.budget}")
    stages = Stages(planned, students, jobs, told=told)
    with running(planned.folder):
        if jobs > 1 and not stages.open():
            run_workers(words, device, jobs, planned.folder, told)
        return conclude(planned, stages)


def _words(recipe: Recipe) -> list[str]:
    """The command-line options that give a worker the recipe, and say which code may run."""
    from decant.pipeline.support.trust import trusts_everything

    words = list(recipe.options)
    for index in range(len(words) - 2, -1, -1):
        if words[index] == "--device":
            del words[index : index + 2]
    return [*words, *(["--trust"] if trusts_everything() else [])]


class Trials:
    """Prints each trial when it has ended, once, with the best so far and the time left."""

    def __init__(self) -> None:
        self._shown = dict[str, set[int]]()
        """The trials of each search that have been printed, or had ended before."""

    def __call__(self, record: SweepRecord) -> None:
        for stage in record.stages:
            ended = {trial.number for trial in stage.ended}
            if stage.name not in self._shown:
                self._shown[stage.name] = ended
                if ended:
                    say(f"{stage.name}: found {len(ended):,} of {stage.total:,} trials ended")
            shown = self._shown[stage.name]
            for trial in stage.ended:
                if trial.number not in shown:
                    shown.add(trial.number)
                    say(_line(record, stage, trial, len(shown)))


def _line(record: SweepRecord, stage: StageRecord, trial: TrialRecord, ended: int) -> str:
    """What is printed of a trial that has ended."""
    from decant.pipeline.sweeps.wording import settings_in_words

    figure, best, left = record.figure, record.best_of(stage), record.seconds_left
    line = f"{stage.name} {ended:,} of {stage.total:,}: {settings_in_words(trial)}: "
    if trial.state != "done":
        line += trial.state + ("" if trial.reason is None else f": {trial.reason}")
    elif trial.value is not None:
        line += f"validation {figure.name} {figure.with_spread(trial.value)}"
    if best is not None and best.value is not None and stage.name != "fresh seeds":
        line += f"; best {figure.with_spread(best.value)}"
    is_last = stage is record.stages[-1] and ended < stage.total
    return line + (f", about {duration(left)} left of this search" if left and is_last else "")


def _print_end(planned: Sweep, record: SweepRecord, as_json: bool) -> None:
    """Prints the result, the command that repeats it, and the files."""
    from decant.pipeline.sweeps.conclusion import BEST
    from decant.pipeline.sweeps.record import RECORD
    from decant.pipeline.sweeps.wording import in_words

    for line in in_words(record):
        say(line)
    assert record.conclusion is not None
    say(f"made {planned.folder / RECORD}, {planned.folder / BEST}")
    say(f"again: {record.conclusion.command}")
    say(f"next: {command_line('report', planned.folder)}")
    if as_json:
        gain = record.gain
        each = {stage.name: record.best_of(stage) for stage in record.stages}
        best = {name: None if one is None else asdict(one) for name, one in each.items()}
        print_json(
            {
                "folder": planned.folder,
                "metric": record.metric,
                "best": best,
                "test": {"distilled": record.conclusion.distilled, "labels": record.conclusion.labels},
                "gain": None if gain is None else gain[0],
                "standard_error": None if gain is None else gain[1],
                "command": record.conclusion.command,
            }
        )
