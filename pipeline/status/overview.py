"""All phases of a recipe, read from the disk, and the next command. Nothing is trained, built or written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from decant.cache import CacheError, LogitCache, MismatchError
from decant.cache.io.redaction import redacted
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.errors import DamagedError, NotMadeError
from decant.pipeline.phases.any_recipe import cache_key, open_given_caches
from decant.pipeline.phases.kinds import RecipePlan
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.runs.result import Kind, Result, find_results
from decant.pipeline.status.live_progress import Pace, Progress
from decant.pipeline.status.outdated import Outdated, nearest_cache, nearest_students, nearest_teacher
from decant.pipeline.status.phase_state import (
    Phase,
    State,
    mark_stale,
    with_cache,
    with_network,
    with_opened,
    with_students,
)
from decant.pipeline.sweeps.record import RECORD, find_records, is_running, load_record
from decant.pipeline.sweeps.wording import in_words

_TEACHERS = ("teacher", "knowledge")
_CACHES = ("cache", "cache of knowledge")
_STUDENTS: dict[Kind, str] = {"labels": "labels-only students", "distilled": "distilled students"}


def next_command(recipe: Recipe, phases: Sequence[Phase]) -> tuple[str, bool]:
    """The next command to run, and whether a running phase has to end before."""
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
    """The phases of a plan, which may be asked for again and again; its data are read once."""

    plan: RecipePlan
    pace: Pace = field(default_factory=Pace, compare=False)

    def phases(self) -> tuple[Phase, ...]:
        """Every phase, in the order in which they are made, and the sweeps. Raises DataError and RecipeError."""
        return (*map(self._of_this_test_part, self._phases()), *sweep_phases(self.plan.base))

    def _of_this_test_part(self, phase: Phase) -> Phase:
        """A phase whose networks were measured on another test part is not done: reports leave them out."""
        tested = [result for result in phase.results if result.is_tested]
        if phase.state == "done" and any(result.test_sha256 != self.plan.test_digest for result in tested):
            return replace(phase, state="stale", detail="measured on another test part")
        return phase

    def _phases(self) -> tuple[Phase, ...]:
        plan, settings = self.plan, self.plan.settings
        results = tuple(find_results(plan.base, skip_damaged=True))
        if settings.cache.from_ is not None:
            given = settings.cache.from_
            caches = [self._given(name) for name in ((given,) if isinstance(given, str) else given)]
            return (*caches, *self._students([], caches, results))
        positions = range(settings.num_teachers)
        if not plan.is_readable:
            return self._nothing(positions)
        if isinstance(plan, LanguagePlan) and plan.server is not None:
            served = self._served()
            caches = [self._of_server(each) for each in plan.by_cache]
            return (served, *caches, *self._students([served], caches, results))
        teachers = [self._teacher(position, results) for position in positions]
        caches = [self._cache(position, teachers[position], results) for position in positions]
        caches += [self._held_out(each, teachers[0]) for each in plan.by_cache[len(positions) :]]
        return (*teachers, *caches, *self._students(teachers, caches, results))

    def _served(self) -> Phase:
        """A teacher behind a server, of which nothing is made here."""
        server = self.plan.settings.teacher.server
        assert server is not None
        name = server.model or "the model"
        return Phase(
            "teacher", "teacher", state="done", detail=f"{name} behind {server.url}: nothing to train"
        )

    def _of_server(self, plan: LanguagePlan) -> Phase:
        """A cache of what a server says; where that was not asked yet, there is none."""
        phase = Phase("cache" if plan.part == "train" else f"cache of {plan.part}", "cache-logits")
        try:
            manifest = plan.manifest
        except NotMadeError:
            return phase
        except DamagedError as error:
            return replace(phase, state="damaged", detail=str(error))
        return with_cache(phase, plan.store, manifest, self.pace)

    def _nothing(self, positions: range) -> tuple[Phase, ...]:
        """Every phase, before anything was run."""
        student = self.plan.settings.student
        kinds: tuple[Kind, ...] = ("labels", "distilled") if student.baseline else ("distilled",)
        served = () if self.plan.settings.teacher.server is None else (self._served(),)
        return (
            *(served or (Phase(_TEACHERS[position], "teacher") for position in positions)),
            *(Phase(_CACHES[position], "cache-logits") for position in positions),
            *(Phase(_STUDENTS[kind], "student", seeds=student.seeds) for kind in kinds),
        )

    def _teacher(self, position: int, results: Sequence[Result]) -> Phase:
        plan = self.plan.by_teacher[position]
        epochs = plan.settings.teacher.epochs
        phase = with_network(Phase(_TEACHERS[position], "teacher"), plan.teacher_folder, epochs)
        current = [each.teacher_folder for each in self.plan.by_teacher]
        return mark_stale(phase, nearest_teacher(self.plan.recipe, position, results, current))

    def _cache(self, position: int, teacher: Phase, results: Sequence[Result]) -> Phase:
        phase = Phase(_CACHES[position], "cache-logits")
        outdated = nearest_cache(self.plan, position, results)
        if not teacher.results:
            return mark_stale(phase, outdated, teacher)
        manifest = self.plan.manifest_of(teacher.results[0])
        return mark_stale(with_cache(phase, self.plan.store, manifest, self.pace), outdated)

    def _held_out(self, plan: RecipePlan, teacher: Phase) -> Phase:
        """The cache that students of tokens are measured with."""
        assert isinstance(plan, LanguagePlan)
        phase = Phase(f"cache of {plan.part}", "cache-logits")
        if not teacher.results:
            return phase
        return with_cache(phase, plan.store, plan.manifest_of(teacher.results[0]), self.pace)

    def _given(self, name: str) -> Phase:
        """A file of `cache.from`: whether it opens, and is of these data and views."""
        phase, settings = Phase("cache", "student", Path(redacted(name))), self.plan.settings
        alone = settings.cache.model_copy(update={"from_": name, "table": "mapped", "remote": "lazy"})
        recipe = replace(self.plan.recipe, settings=settings.model_copy(update={"cache": alone}))
        try:
            (cache,) = open_given_caches(replace(self.plan, recipe=recipe))
        except FileNotFoundError as error:
            return replace(phase, detail=str(error))
        except MismatchError as error:
            outdated = Outdated(phase.path or Path(), error.differences)
            detail = str(error).partition("\n")[0].removesuffix(":")
            return replace(phase, state="stale", outdated=outdated, detail=detail)
        except (CacheError, OSError) as error:
            return replace(phase, state="damaged", detail=str(error))
        return with_opened(phase, cache)

    def _students(
        self, teachers: Sequence[Phase], caches: Sequence[Phase], results: Sequence[Result]
    ) -> list[Phase]:
        """The labels-only students, if there is a baseline and the data have labels, then the distilled ones."""
        unfinished = next((phase for phase in (*teachers, *caches) if phase.state != "done"), None)
        key, detail = None, ""
        try:
            key = self._cache_key(teachers, caches)
        except (CacheError, FileNotFoundError) as error:  # caches that do not fit together, or just deleted
            detail = str(error)
        folder = None if key is None else self.plan.student_folder("distilled", key)
        distilled = self._students_of("distilled", folder, results, unfinished)
        distilled = replace(distilled, detail=detail or distilled.detail)
        if self.plan.settings.student.baseline and self.plan.has_labels:
            labels_only = self._students_of("labels", self.plan.student_folder("labels"), results)
            return [labels_only, distilled]
        return [distilled]

    def _cache_key(self, teachers: Sequence[Phase], caches: Sequence[Phase]) -> str | None:
        """The key of what distilled students are trained from; None while it is not known."""
        if all(cache.state == "done" for cache in caches):
            opened = [LogitCache.open(str(cache.path), verify="off") for cache in caches]
            return cache_key(self.plan, opened)
        if len(teachers) == 1 and teachers[0].results:
            return self.plan.manifest_of(teachers[0].results[0]).key
        return None

    def _students_of(
        self, kind: Kind, folder: Path | None, results: Sequence[Result], unfinished: Phase | None = None
    ) -> Phase:
        """The students of one kind; `folder` is None while it is not known."""
        student = self.plan.settings.student
        phase = Phase(_STUDENTS[kind], "student", seeds=student.seeds)
        if folder is not None:
            phase = with_students(phase, folder, self.plan.seeds, student.epochs)
        return mark_stale(phase, nearest_students(self.plan.recipe, kind, results, folder), unfinished)


def sweep_phases(base: Path) -> Iterator[Phase]:
    """A phase for each sweep in a run folder, the one that was written last first."""
    for folder in find_records(base):
        try:
            record = load_record(folder)
        except (DamagedError, OSError) as error:
            yield Phase("sweep", "sweep", folder, state="damaged", detail=str(error))
            continue
        if record.conclusion is not None:
            finished = (folder / RECORD).stat().st_mtime
            *_, result = in_words(record)
            yield Phase("sweep", "sweep", folder, state="done", finished=finished, detail=result)
            continue
        progress = Progress(record.done, record.total, "trials", record.seconds_left)
        state: State = "running" if is_running(folder) else "interrupted"
        detail = "\n".join(in_words(record))
        yield Phase("sweep", "sweep", folder, state=state, progress=progress, detail=detail)
