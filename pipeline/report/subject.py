"""The runs that a report is about, the student that it examines, and the student's data and cache."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from decant.cache import LogitSource, Store
from decant.pipeline.config.annealing import Scheduled
from decant.pipeline.config.augmentations import Mixing
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.data.samples import has_labels
from decant.pipeline.errors import DamagedError, DataError, NotMadeError, PipelineError
from decant.pipeline.phases import soft_labels
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.job import MeasuredOn, load_result_on
from decant.pipeline.phases.kinds import plan_of
from decant.pipeline.phases.language.evaluate import on_test_part
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.plan import Plan
from decant.pipeline.report.rows import Row, rows_of
from decant.pipeline.report.told_apart import shortened
from decant.pipeline.runs.open import FinishedRun, class_names, open_run
from decant.pipeline.runs.result import Result, find_results
from decant.pipeline.runs.saved_logits import load_test_logits
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.runs.saved_recipe import RECIPE, changed_settings, has_data, read_saved_recipe
from decant.pipeline.training.evaluation import predict

_SECTIONS = ("data", "views", "teacher", "knowledge", "cache", "student")


@dataclass(frozen=True)
class Subject:
    """The networks of a report. `focus` is the one that it examines: a distilled student if there is one."""

    title: str
    results: tuple[Result, ...]
    focus: FinishedRun
    store: Store
    device: torch.device
    unfinished: tuple[str, ...] = ()
    """One line for each kind of student of which not all seeds are finished."""

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """One row for each kind of network."""
        return rows_of(self.results)

    @cached_property
    def names(self) -> list[str]:
        """The name of each row in charts."""
        return names_of(self.rows)

    @property
    def base(self) -> Path:
        """The run folder of the focus's recipe."""
        return self.focus.result.seeds_folder.parent

    @cached_property
    def teachers(self) -> tuple[Result, ...]:
        """The teachers of the focus that are in its run folder, in the order of the recipe; the focus itself if it is
        a teacher.
        """
        focus = self.focus.result
        if focus.kind == "teacher":
            return (focus,)
        there = {
            result.weights_sha256: result for result in reversed(self.results) if result.kind == "teacher"
        }
        weights = dict.fromkeys([*(focus.teachers or ()), focus.teacher])
        return tuple(there[one] for one in weights if one in there)

    @property
    def teacher(self) -> Result | None:
        """The first teacher."""
        return next(iter(self.teachers), None)

    @cached_property
    def labels_only(self) -> Result | None:
        """The labels-only student that differs from the focus in nothing else."""
        focus = self.focus.result
        twins = (
            result
            for result in self.results
            if result.folder.parent.name == focus.baseline and result.seed == focus.seed
        )
        return next(twins, None)

    @property
    def compared(self) -> dict[str, Result]:
        """Teacher, student and labels-only student, as far as they exist, by name."""
        focus = self.focus.result
        named = {"teacher": self.teacher, "labels only": self.labels_only, "student": focus}
        if focus.kind != "distilled":
            named = {"teacher" if focus.kind == "teacher" else "labels only": focus}
        return {name: result for name, result in named.items() if result is not None}

    @cached_property
    def plan(self) -> Plan:
        """What the recipe of the focus leads to. Raises DataError if the focus was measured on another test split."""
        plan = Plan.of(self.focus.recipe, self.base, self.store)
        test = plan.splits.test.data
        if test.digest() != self.focus.result.test_sha256:
            raise DataError(
                f"{test.name}: the test part is not the one that {self.focus.folder} was measured on"
            )
        return plan

    @property
    def of_tokens(self) -> bool:
        """Whether the networks are language models."""
        return self.focus.recipe.settings.data.of_tokens

    @cached_property
    def language_plan(self) -> LanguagePlan:
        """What the recipe of a language model leads to. Raises DataError if the focus was measured on other texts."""
        plan = LanguagePlan.of(self.focus.recipe, self.base, self.store)
        if plan.data.digest("test") != self.focus.result.test_sha256:
            raise DataError(f"{self.focus.folder}: the test part is not the one that it was measured on")
        return plan

    @property
    def splits(self) -> Splits:
        """The data of the focus, through its views. Raises as `plan` does."""
        return self.plan.splits

    @cached_property
    def cache(self) -> LogitSource:
        """The cache that the focus was trained on. Raises NotMadeError, CacheError."""
        focus = self.focus.result
        if focus.kind != "distilled":
            raise NotMadeError(f"{focus.folder}: learnt from labels alone, and so from no cache")
        of_tokens = self.of_tokens
        cache = (
            self.language_plan.open_cache(verify="off") if of_tokens else soft_labels.open_cache(self.plan)
        )
        if cache.manifest.key != focus.cache:
            raise NotMadeError(
                f"{cache.path}: is not the cache that {focus.folder} learnt from, whose key is {focus.cache}"
            )
        return cache

    @property
    def temperature(self) -> float:
        """The temperature of the focus's objective; 1 if it has none, the final value of a schedule."""
        temperature = getattr(self.focus.recipe.settings.student.objective, "temperature", 1.0)
        if isinstance(temperature, Scheduled):
            return temperature.to
        # A custom objective may have anything.
        return float(temperature) if isinstance(temperature, int | float) and temperature > 0 else 1.0

    @property
    def unlabelled(self) -> str | None:
        """Why labels do not describe what the focus's views show; None if they do."""
        if any(isinstance(one, Mixing) for one in self.focus.recipe.settings.views.augment):
            return "the views mix samples, each of which has a label of its own"
        return None if has_labels(self.splits.student_train.data) else "the samples have no labels"

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each class; equal names get their class numbers."""
        count = 2 if self.focus.sigmoids == "binary" else self.focus.result.network.num_classes
        names = tuple(map(shortened, class_names(self.splits.student_train.data.classes, count)))
        often = Counter(names)
        return tuple(f"{name} ({label})" if often[name] > 1 else name for label, name in enumerate(names))

    def test_logits(self, result: Result) -> NDArray[np.float32]:
        """(N, C) outputs of a network on the test part, as its run recorded them, or computed again if that file is
        missing or damaged. Raises WeightsError if the weights are missing too.
        """
        with contextlib.suppress(OSError, DamagedError):
            return load_test_logits(result.folder, len(self.splits.test), result.network.num_classes)
        return predict(load_network(result).to(self.device), self.splits.test, self.device).numpy()


def names_of(rows: Sequence[Row]) -> list[str]:
    """A name for each row, of bounded length, which no other has."""
    return [
        shortened(f"{row.name}, {row.kind}") + (f", {row.told_by}" if row.told_by else "") for row in rows
    ]


def of_recipe(recipe: Recipe, base: Path, store: Store, device: torch.device) -> Subject:
    """The finished runs of a recipe that were trained on its data and measured on the same test part as the focus:
    the distilled student whose settings are nearest to the recipe's. Raises NotMadeError if nothing is finished.
    """
    found = plan_of(recipe, base, store, decode="none").finished()
    finished = tuple(result for result in found if result.is_tested)
    if found and not finished:
        raise NotMadeError(
            f"{base}: its networks are trials, measured on the validation part alone; run: {recipe.command('student')}"
        )
    if not finished:
        first = "teacher" if recipe.settings.teacher.server is None else "student"
        raise NotMadeError(f"{base}: no finished network to report; run: {recipe.command(first)}")

    def distance(result: Result) -> tuple[int, int]:
        changed = changed_settings(recipe, result.folder, _SECTIONS)
        return (1_000 if changed is None else len(changed), result.seed)

    focus = min(_focus_candidates(finished), key=distance)
    opened = (
        replace(open_run(focus.folder), recipe=recipe)
        if not distance(focus)[0]
        else _opened(focus, recipe.name)
    )
    if not has_data(
        focus.folder, recipe.settings.data
    ):  # another person's run, which names where the data were
        settings = opened.recipe.settings.model_copy(update={"data": recipe.settings.data})
        opened = replace(opened, recipe=replace(opened.recipe, settings=settings))
    comparable = tuple(result for result in finished if result.test_sha256 == focus.test_sha256)
    begun = {path.parent for path in base.glob(f"student-*/seed-*/{RECIPE}")} - {one.folder for one in found}
    own = [folder.parent for folder in begun if not changed_settings(recipe, folder, _SECTIONS)]
    unfinished = _unfinished([*own, *(one.seeds_folder for one in comparable)], found, recipe)
    return Subject(recipe.name, comparable, opened, store, device, unfinished)


def of_runs(paths: Sequence[Path], store: Store, device: torch.device) -> Subject:
    """The networks of some runs, and of runs in folders, with their teachers and labels-only students; the focus is
    the first distilled student. Raises NotMadeError if nothing is finished, and DataError if they were measured on
    different data.
    """
    given = [_tested(result, store, device) for result in _by_folder(_expanded(paths))]
    compared = _by_folder([*given, *_belonging(given)])
    focus = _opened(_focus_candidates(given)[0], None)
    for result in compared:
        if result.test_sha256 != focus.result.test_sha256:
            raise DataError(
                f"{result.folder}: was measured on another test part than {focus.folder}; networks can be "
                "compared on the same one only"
            )
    asked = {path.resolve() for path in paths}
    whole = [result.seeds_folder for result in given if asked.intersection(result.folder.resolve().parents)]
    return Subject(focus.recipe.name, compared, focus, store, device, _unfinished(whole, given))


def _unfinished(
    folders: Iterable[Path], results: Sequence[Result], recipe: Recipe | None = None
) -> tuple[str, ...]:
    """A line for each of some folders of students of which fewer seeds are finished than the recipe has; of a folder of
    other settings, than were begun, or than the recipe in one of them has.
    """
    lines = []
    for folder in sorted(set(folders)):
        begun = [path.parent for path in folder.glob(f"seed-*/{RECIPE}")]
        finished = {result.seed for result in results if result.seeds_folder == folder}
        if recipe is not None and any(changed_settings(recipe, one, _SECTIONS) == [] for one in begun):
            student = recipe.settings.student
            finished &= set(range(student.seed, student.seed + student.seeds))
            total = student.seeds
        else:
            wanted = [(read_saved_recipe(one) or {}).get("student", {}).get("seeds") for one in begun]
            total = max([len(begun), *(count for count in wanted if isinstance(count, int))])
        if len(finished) < total and begun and folder.name.startswith("student-"):
            lines.append(f"{folder}: {len(finished):,} of {total:,} seeds are finished")
    return tuple(lines)


def _by_folder(results: Iterable[Result]) -> tuple[Result, ...]:
    """Each network once, by its real folder: in the folder above are its other seeds, above that is its run folder.
    Relative where that is below the working directory with these.
    """
    found, here = dict[Path, Result](), Path.cwd()
    for result in results:
        folder = result.folder.resolve()
        below = folder.relative_to(here) if folder.is_relative_to(here) else folder
        found[folder] = replace(result, folder=below if len(below.parts) > 1 else folder)
    return tuple(found.values())


def _tested(result: Result, store: Store, device: torch.device) -> Result:
    """The same network, measured on the test part, which a trial of a sweep is not until somebody asks."""
    if result.is_tested:
        return result
    recipe, base = _opened(result, None).recipe, result.seeds_folder.parent
    if recipe.settings.data.of_tokens:
        tested = on_test_part(LanguagePlan.of(recipe, base, store), result, device)
        with contextlib.suppress(OSError):  # another person's run
            tested.save()
        return tested
    splits = Plan.of(recipe, base, store).splits
    return load_result_on(result.folder, MeasuredOn(splits.test, splits.validation), device) or result


def _expanded(paths: Sequence[Path]) -> Iterable[Result]:
    """The finished runs among the paths, or inside of them. Raises NotMadeError for a path without any."""
    for path in paths:
        below = list(find_results(path)) if path.is_dir() else []
        yield from below or [open_run(path).result]


def _belonging(given: Sequence[Result]) -> Iterable[Result]:
    """Teachers and labels-only students in the same run folders that the given students are compared with."""
    for base in {result.folder.parent.parent for result in given if result.kind == "distilled"}:
        with contextlib.suppress(PipelineError):
            for other in find_results(base):
                if any(_belongs(other, result) for result in given if result.folder.parent.parent == base):
                    yield other


def _belongs(other: Result, student: Result) -> bool:
    if other.kind == "teacher":
        return other.weights_sha256 in (student.teacher, *(student.teachers or ()))
    return other.kind == "labels" and (other.folder.parent.name, other.seed) == (
        student.baseline,
        student.seed,
    )


def _focus_candidates(candidates: Sequence[Result]) -> list[Result]:
    """The distilled students; if there are none, the labels-only students, or else the teachers."""
    kinds = {result.kind for result in candidates}
    kind = next(kind for kind in ("distilled", "labels", "teacher") if kind in kinds)
    return [result for result in candidates if result.kind == kind]


def _opened(result: Result, name: str | None) -> FinishedRun:
    """A run with its recorded recipe, named after its run folder."""
    opened = open_run(result.folder)
    above = result.seeds_folder.parent
    options = ("--recipe", str(result.folder / "recipe.toml"))
    return replace(opened, recipe=replace(opened.recipe, name=name or above.name, options=options))
