"""The searches of a sweep, one after the other: students, the labels-only students that they are compared with, and
fresh seeds of the best of both. Every process of a sweep goes through all of them, and runs what no other does.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from optuna.trial import FrozenTrial, TrialState

from decant.cache import CacheError
from decant.pipeline.config.recipe import Recipe, overridden
from decant.pipeline.errors import DataError, DivergedError, NotMadeError, PipelineError, is_out_of_memory
from decant.pipeline.runs.result import Kind, Result
from decant.pipeline.support.plugins import in_words
from decant.pipeline.sweeps.definition import Sweep
from decant.pipeline.sweeps.pruning import Pruned, Watch
from decant.pipeline.sweeps.record import (
    StageName,
    StageRecord,
    State,
    SweepRecord,
    TrialRecord,
    load_record,
    write_record,
)
from decant.pipeline.sweeps.sampling import shown, shuffled
from decant.pipeline.sweeps.searches import Claim, Search, SearchPlan
from decant.pipeline.sweeps.space import Choices, grid
from decant.pipeline.sweeps.students import AnyStudents
from decant.pipeline.training.epoch_log import read_epochs

_POLL_SECONDS = 0.2
_STATES: dict[str, State] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class Stage:
    """A search, and the student that each of its trials is."""

    name: StageName
    search: Search
    student: Callable[[tuple[str, ...]], tuple[Recipe, Kind, int]]
    """The recipe, the kind and the seed of a trial, by its values."""
    tested: bool = False
    """Whether its students are measured on the test part."""
    prunes: bool = False


@dataclass
class Stages:
    """Runs a sweep in this process, which may be one of several.

    `told` is called after each trial that this process has ended, and when it has waited for others; `alive` raises
    where the sweep is to end here.
    """

    sweep: Sweep
    students: AnyStudents[Any, Any]
    jobs: int = 1
    command: str = ""
    """The process that this one is a worker of."""
    told: Callable[[SweepRecord], None] = lambda record: None
    alive: Callable[[], None] = lambda: None
    _begun: list[Stage] = field(default_factory=list)
    _last: SweepRecord | None = None

    def run(self) -> tuple[Recipe, Recipe | None]:
        """Runs every search; returns the best settings, and those of the baseline. Raises
        PipelineError where no trial of one has come to an end, and whatever concerns all trials alike.
        """
        students = self.choose_students()
        best = self._best_of(students)
        baseline = self._best_of(self._choose_baseline(best, students)) if self.sweep.has_baseline else None
        fresh = self._fresh(best, baseline)
        self._run(fresh)
        return best, baseline

    def open(self) -> bool:
        """Opens the journal, and writes a first record, before other processes are started; whether nothing is left for
        them to do. Raises DamagedError where the journal is of another sweep.
        """
        self._begun = [self._students()]
        self._tell()
        self._begun.clear()
        written, kinds = load_record(self.sweep.folder), 2 if self.sweep.has_baseline else 1
        totals = [self.sweep.trials] * kinds + [kinds * len(self.sweep.fresh_seeds)]
        return written.conclusion is not None and [stage.total for stage in written.stages] == totals

    def choose_students(self) -> Stage:
        """The search over the settings of the sweep, run to its end."""
        stage = self._students()
        self._run(stage)
        return stage

    @cached_property
    def _definition(self) -> dict[str, Any]:
        return {**self.sweep.definition, **self.students.made_of(self.sweep)}

    def _students(self) -> Stage:
        sweep, settings = self.sweep, self.sweep.settings
        prunes = settings.pruner == "hyperband"
        epochs = [str(sweep.recipe.settings.student.epochs)]
        epochs += [end for setting in sweep.space if setting.path == "student.epochs" for end in setting.ends]
        plan = SearchPlan(
            "students",
            sweep.space,
            sweep.trials,
            sweep.figure.less_is_better,
            settings.sampler,
            settings.seed,
            points=shuffled(grid(sweep.space), settings.seed)[: sweep.trials]
            if settings.sampler == "grid"
            else None,
            epochs=max(map(int, epochs)) if prunes else None,
        )
        seed = sweep.recipe.settings.student.seed
        return Stage(
            "students",
            Search(sweep.folder, plan, self._definition, self.command),
            lambda values: (sweep.variation(values), "distilled", seed),
            prunes=prunes,
        )

    def _choose_baseline(self, best: Recipe, students: Stage) -> Stage:
        """The search over the learning rate of labels-only students that are like the best in all else."""
        ended = [
            students.student(students.search.values(trial))[0].settings.student.lr
            for trial in students.search.trials
            if trial.state == TrialState.COMPLETE
        ]
        sweep, rate = self.sweep, self.sweep.baseline_rate(best, ended)
        seed = best.settings.student.seed
        plan = SearchPlan(
            f"baseline-{_digest(best)}",
            (rate,),
            sweep.trials,
            sweep.figure.less_is_better,
            "random" if sweep.settings.sampler == "random" else "tpe",
            sweep.settings.seed,
        )
        stage = Stage(
            "baseline",
            Search(sweep.folder, plan, self._definition, self.command),
            lambda values: (overridden(best, [f"{rate.path}={values[0]}"]), "labels", seed),
        )
        self._run(stage)
        return stage

    def _fresh(self, best: Recipe, baseline: Recipe | None) -> Stage:
        """The students that are measured on the test part: fresh seeds of the best settings, and of the baseline's."""
        recipes: dict[str, Recipe] = {"distilled": best} | ({} if baseline is None else {"labels": baseline})
        points = [(kind, str(seed)) for seed in self.sweep.fresh_seeds for kind in recipes]
        space = (
            Choices("kind", ("distilled", "labels")),
            Choices("student.seed", tuple(map(str, self.sweep.fresh_seeds))),
        )
        names = "-".join(_digest(recipe) for recipe in recipes.values())
        plan = SearchPlan(
            f"fresh-{len(self.sweep.fresh_seeds)}-{names}",
            space,
            len(points),
            self.sweep.figure.less_is_better,
            points=points,
        )

        def student(values: tuple[str, ...]) -> tuple[Recipe, Kind, int]:
            kind, seed = values
            return recipes[kind], "labels" if kind == "labels" else "distilled", int(seed)

        return Stage(
            "fresh seeds",
            Search(self.sweep.folder, plan, self._definition, self.command),
            student,
            tested=True,
        )

    def _best_of(self, stage: Stage) -> Recipe:
        best = stage.search.best
        if best is None:
            reasons = [trial.user_attrs.get("reason") for trial in stage.search.trials]
            first = next((reason for reason in reasons if reason), "every one was pruned")
            raise PipelineError(
                f"{self.sweep.folder}: none of {len(reasons):,} trials has come to an end; the first: {first}"
            )
        return stage.student(stage.search.values(best))[0]

    def _run(self, stage: Stage) -> None:
        """Runs what no other process does, until every trial of the search has ended."""
        self._begun.append(stage)
        self._tell()
        while not stage.search.is_over:
            self.alive()
            with stage.search.claim() as claim:
                if claim is not None:
                    self._run_trial(stage, claim)
            if claim is None:
                time.sleep(_POLL_SECONDS)
            self._tell()

    def _run_trial(self, stage: Stage, claim: Claim) -> None:
        """Trains the student of a trial and tells its metric, or why there is none. What concerns every trial, as a
        full disk or a damaged cache, is raised: the trial is gone on with when that is mended.
        """
        try:
            value = self._train(stage, claim)
        except Pruned:
            stage.search.prune(claim)
        except (OSError, CacheError, DataError, NotMadeError):
            raise
        except Exception as error:
            stage.search.fail(claim.number, _reason(error))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        else:
            stage.search.tell(claim, value)

    def _train(self, stage: Stage, claim: Claim) -> float:
        recipe, kind, seed = stage.student(claim.values)
        # The run folder keeps it: no more seeds are to come there.
        recipe = overridden(recipe, [f"student.seed={seed}", "student.seeds=1"])
        job = self.students.job(recipe, kind, seed)
        claim.trial.set_user_attr("folder", str(job.folder.relative_to(self.sweep.plan.base)))
        watch = Watch(claim, stage.prunes, self.alive, self.sweep.figure)
        watch.catch_up(read_epochs(job.folder), (job.folder / "result.json").exists())
        started = time.perf_counter()
        result, _ = self.students.train(job, recipe, watch, tested=stage.tested)
        claim.trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
        return self._value(result)

    def _value(self, result: Result) -> float:
        figure = self.sweep.figure
        value = figure.value(result.validation or {})
        if value is None:
            raise DivergedError(f"{result.folder}: has no {figure.name} on the validation part")
        return value

    def _tell(self) -> None:
        """Writes the record, and shows it."""
        record = self.record()
        if record != self._last:
            self._last = record
            write_record(self.sweep.folder, record)
            self.told(record)

    @property
    def importances(self) -> dict[str, float]:
        """How much each setting of the sweep decides, once it was searched."""
        return self._begun[0].search.importances() if self._begun else {}

    def record(self) -> SweepRecord:
        """How far the sweep has come, in every search that has begun."""
        settings = self.sweep.settings
        return SweepRecord(
            recipe=self.sweep.recipe.name,
            over=[str(setting) for setting in self.sweep.space],
            sampler=settings.sampler,
            pruner=settings.pruner,
            metric=self.sweep.figure.key,
            jobs=self.jobs,
            stages=[
                StageRecord(
                    stage.name,
                    stage.search.plan.trials,
                    [_recorded(stage, trial) for trial in stage.search.trials],
                )
                for stage in self._begun
            ],
        )


def _recorded(stage: Stage, trial: FrozenTrial) -> TrialRecord:
    known = [setting for setting in stage.search.plan.space if setting.path in trial.params]
    values = stage.search.values(trial)
    attributes = trial.user_attrs
    settings = {setting.path: shown(setting, value) for setting, value in zip(known, values, strict=True)}
    return TrialRecord(
        number=trial.number,
        settings=settings,
        state=_STATES.get(trial.state.name, "running"),
        value=None if trial.value is None else float(trial.value),
        seconds=attributes.get("seconds"),
        folder=attributes.get("folder"),
        reason=attributes.get("reason"),
    )


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return f"out of memory ({in_words(error)})"
    return str(error) if isinstance(error, PipelineError) else in_words(error)


def _digest(recipe: Recipe) -> str:
    settings = recipe.settings.student.model_dump(mode="json")
    cache = recipe.settings.cache.model_dump(mode="json", by_alias=True)
    return hashlib.sha256(json.dumps([settings, cache], sort_keys=True).encode()).hexdigest()[:8]
