"""How far the phases of a recipe are, as it shows on the disk. Nothing is trained, built or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from decant.cache import CacheError, LogitCache, Manifest, MismatchError, Store
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.data import describe
from decant.pipeline.data.builtin import TORCHVISION
from decant.pipeline.data.held_out import divide
from decant.pipeline.data.samples import LabelledData, has_labels
from decant.pipeline.phases import plan, soft_labels
from decant.pipeline.runs.folders import student_folder, teacher_folder
from decant.pipeline.runs.result import Kind, Result, find_results
from decant.pipeline.status.outdated import (
    Outdated,
    nearest_cache,
    nearest_students,
    nearest_teacher,
)
from decant.pipeline.status.phase_state import (
    Phase,
    perhaps_stale,
    with_cache,
    with_network,
    with_opened,
    with_students,
)

_TEACHERS = ("teacher", "knowledge")
_CACHES = ("cache", "cache of knowledge")
_STUDENTS: dict[Kind, str] = {"labels": "labels-only students", "distilled": "distilled students"}


def next_command(recipe: Recipe, phases: Sequence[Phase]) -> tuple[str, bool]:
    """The next sensible command, and whether something that is running has to end before it."""
    running = False
    for command in ("teacher", "cache-logits", "student"):
        states = {phase.state for phase in phases if phase.command == command}
        if "running" in states:
            running = True
        elif states - {"done"}:
            return recipe.command(command), running
    return recipe.command("report"), running


@dataclass(frozen=True)
class Overview:
    """The phases of a recipe, to be looked at again and again; its data are read once."""

    recipe: Recipe
    base: Path
    store: Store

    def phases(self) -> tuple[Phase, ...]:
        """Every phase, in the order in which they are made. Raises DataError and RecipeError."""
        settings, results = self.recipe.settings, tuple(find_results(self.base, skip_damaged=True))
        if settings.cache.from_ is not None:
            given = settings.cache.from_
            caches = [self._given(name) for name in ((given,) if isinstance(given, str) else given)]
            return (*caches, *self._students([], caches, results))
        places = range(settings.num_teachers)
        if settings.data.name in TORCHVISION and not self.base.is_dir():
            return self._nothing(places)  # to read such data may be to download them
        teachers = [self._teacher(place, results) for place in places]
        caches = [self._cache(place, teachers[place], results) for place in places]
        return (*teachers, *caches, *self._students(teachers, caches, results))

    @cached_property
    def _divided(self) -> tuple[LabelledData, LabelledData]:
        """What the teacher learns from, and what it is cached on."""
        settings = self.recipe.settings
        return divide(settings, describe(settings.data, settings.views, "train"))

    @property
    def _data(self) -> LabelledData:
        """What students learn from."""
        return self._divided[1]

    @cached_property
    def _teacher_folders(self) -> tuple[Path, ...]:
        data = self._divided[0]
        views, content = plan.of_views(self.recipe.settings.views, data), plan.of_data(data)
        return tuple(
            teacher_folder(self.base, one.settings.teacher, {"views": views, "data": content})
            for one in self.recipe.by_teacher
        )

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        """What students of either kind learn from, beside labels and logits."""
        data = self._data
        return {"views": plan.of_views(self.recipe.settings.views, data), "data": plan.of_data(data)}

    def _nothing(self, places: range) -> tuple[Phase, ...]:
        """Every phase, before anything was run."""
        asked = self.recipe.settings.student
        kinds: tuple[Kind, ...] = ("labels", "distilled") if asked.baseline else ("distilled",)
        return (
            *(Phase(_TEACHERS[place], "teacher") for place in places),
            *(Phase(_CACHES[place], "cache-logits") for place in places),
            *(Phase(_STUDENTS[kind], "student", seeds=asked.seeds) for kind in kinds),
        )

    def _teacher(self, place: int, results: Sequence[Result]) -> Phase:
        total = self.recipe.by_teacher[place].settings.teacher.epochs
        here = with_network(Phase(_TEACHERS[place], "teacher"), self._teacher_folders[place], total)
        return perhaps_stale(here, nearest_teacher(self.recipe, place, results, self._teacher_folders))

    def _cache(self, place: int, teacher: Phase, results: Sequence[Result]) -> Phase:
        here, data = Phase(_CACHES[place], "cache-logits"), self._data
        found = nearest_cache(self.recipe, place, results, data, self.store)
        if not teacher.results:
            return perhaps_stale(here, found, teacher)
        return perhaps_stale(with_cache(here, self.store, self._manifest(teacher.results[0])), found)

    def _manifest(self, teacher: Result) -> Manifest:
        settings = self.recipe.settings
        return plan.of_cache(self._data, settings.views, teacher, settings.cache)

    def _given(self, name: str) -> Phase:
        """A file of `cache.from`: whether it opens, and is of these data and views."""
        here, settings = Phase("cache", "student", Path(name)), self.recipe.settings
        only = settings.cache.model_copy(update={"from_": name, "table": "mapped"})
        one = replace(self.recipe, settings=settings.model_copy(update={"cache": only}))
        try:
            (cache,) = soft_labels.given_caches(one, self._data, "off")
        except FileNotFoundError as error:
            return replace(here, detail=str(error))
        except MismatchError as error:
            found = Outdated(Path(name), error.differences)
            return replace(
                here, state="stale", outdated=found, detail=str(error).partition("\n")[0].removesuffix(":")
            )
        except (CacheError, OSError) as error:
            return replace(here, state="damaged", detail=str(error))
        return with_opened(here, cache)

    def _students(
        self, teachers: Sequence[Phase], caches: Sequence[Phase], results: Sequence[Result]
    ) -> list[Phase]:
        """The labels-only students where they are wanted and there are labels, then the distilled ones."""
        before = next((phase for phase in (*teachers, *caches) if phase.state != "done"), None)
        key, detail = None, ""
        try:
            key = self._learnt_from(teachers, caches)
        except (CacheError, FileNotFoundError) as error:  # files that do not go together, or are gone by now
            detail = str(error)
        question = None if key is None else {**self._inputs, "cache": key}
        distilled = self._kind("distilled", question, results, before)
        distilled = replace(distilled, detail=detail or distilled.detail)
        if self.recipe.settings.student.baseline and has_labels(self._data):
            return [self._kind("labels", self._inputs, results), distilled]
        return [distilled]

    def _learnt_from(self, teachers: Sequence[Phase], caches: Sequence[Phase]) -> str | None:
        """The key of what distilled students learn from; None while it cannot be known."""
        if all(cache.state == "done" for cache in caches):
            opened = [LogitCache.open(str(cache.path), verify="off") for cache in caches]
            return soft_labels.together(self.recipe, opened).manifest.key
        if len(teachers) == 1 and teachers[0].results:
            return self._manifest(teachers[0].results[0]).key
        return None

    def _kind(
        self,
        kind: Kind,
        question: dict[str, Any] | None,
        results: Sequence[Result],
        before: Phase | None = None,
    ) -> Phase:
        """The students of one kind; `question` decides their folder, where it is known."""
        asked, folder = self.recipe.settings.student, None
        here = Phase(_STUDENTS[kind], "student", seeds=asked.seeds)
        if question is not None:
            folder = student_folder(self.base, asked, kind, question)
            seeds = range(asked.seed, asked.seed + asked.seeds)
            here = with_students(here, folder, seeds, asked.epochs)
        return perhaps_stale(here, nearest_students(self.recipe, kind, results, folder), before)
