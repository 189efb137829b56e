"""What a run folder still holds of other settings: of each kind the nearest, and the settings in which it differs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decant.cache import CacheError, Difference, LogitCache, Store, differences
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.data.samples import LabelledData
from decant.pipeline.phases import plan
from decant.pipeline.runs.result import Kind, Result
from decant.pipeline.runs.saved_recipe import changed_settings

_DECIDING: dict[Kind, tuple[str, ...]] = {
    "teacher": ("data", "views", "teacher"),
    "labels": ("data", "views", "student"),
    "distilled": ("data", "views", "teacher", "knowledge", "cache", "student"),
}
_INDIFFERENT: dict[Kind, tuple[str, ...]] = {  # settings of those sections that decide nothing
    "teacher": ("views.count",),
    "labels": ("student.objective",),
}
_OF_TEACHERS = ("teacher", "knowledge", "cache.dtype", "cache.precision")  # idle beside cache.from
_SETTINGS = {"encoding.dtype": "cache.dtype", "encoding.teacher_precision": "cache.precision"}


@dataclass(frozen=True)
class Outdated:
    """Something finished that other settings made."""

    path: Path
    changed: tuple[Difference, ...]
    """Expected is what the recipe says, found what that was made with; none where the data or a file changed."""


def nearest_teacher(
    recipe: Recipe, place: int, results: Iterable[Result], current: Collection[Path]
) -> Outdated | None:
    """For the teacher at `place` of the recipe's; `current` are the run folders of all of them."""
    folders = [
        result.folder for result in results if result.kind == "teacher" and result.folder not in current
    ]
    return _nearest((folder, _of_teacher(recipe, place, folder)) for folder in folders)


def nearest_cache(
    recipe: Recipe, place: int, results: Iterable[Result], data: LabelledData, store: Store
) -> Outdated | None:
    """For the cache of the teacher at `place`: of those in the store that a teacher under the run folder answered."""
    settings, found = recipe.settings, []
    teachers = [result for result in results if result.kind == "teacher"]
    for path in store.paths():
        try:
            held = LogitCache.open(path, verify="off").manifest.identity
        except (CacheError, OSError):
            continue
        for teacher in teachers:
            if teacher.weights_sha256 == held["teacher"].get("weights_sha256"):
                of_teacher = _of_teacher(recipe, place, teacher.folder)
                asked = plan.of_cache(data, settings.views, teacher, settings.cache).identity
                others = [
                    other._replace(field=_SETTINGS.get(other.field, other.field))
                    for other in differences(asked, held, ("views", "encoding"))
                ]
                found.append((path, None if of_teacher is None else [*of_teacher, *others]))
    return _nearest(found)


def nearest_students(
    recipe: Recipe, kind: Kind, results: Iterable[Result], current: Path | None
) -> Outdated | None:
    """For the students of one kind; `current` is their folder, where it is known."""
    folders = {result.folder.parent: result.folder for result in results if result.kind == kind}
    folders = {parent: folder for parent, folder in folders.items() if parent != current}
    idle = _OF_TEACHERS if recipe.settings.cache.from_ is not None else ()
    return _nearest((parent, _changed(recipe, folder, kind, idle)) for parent, folder in folders.items())


def _of_teacher(recipe: Recipe, place: int, folder: Path) -> list[Difference] | None:
    """How the teacher of a folder differs from the one at `place`; None where it is nearer to another one."""
    by_place = [_changed(one, folder, "teacher") for one in recipe.by_teacher]
    if any(found is None for found in by_place):
        return None
    fewest = min(len(found or ()) for found in by_place)
    found = by_place[place] or []
    if len(found) > fewest:
        return None
    if place == 0:
        return found
    return [one._replace(field=one.field.replace("teacher.", "knowledge.", 1)) for one in found]


def _changed(recipe: Recipe, folder: Path, kind: Kind, idle: Sequence[str] = ()) -> list[Difference] | None:
    found = changed_settings(recipe, folder, _DECIDING[kind])
    if found is None:
        return None
    return [one for one in found if not one.field.startswith((*_INDIFFERENT.get(kind, ()), *idle))]


def _nearest(found: Iterable[tuple[Path, Sequence[Difference] | None]]) -> Outdated | None:
    """The one that differs in the fewest settings; each is told once."""
    known = [
        Outdated(path, tuple({one.field: one for one in changed}.values()))
        for path, changed in found
        if changed is not None
    ]
    return min(known, key=lambda one: (len(one.changed), one.path), default=None)
