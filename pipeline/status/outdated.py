"""What other settings have made: of each kind the nearest, and the settings in which it differs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decant.cache import CacheError, Difference, LogitCache, differences
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.phases.plan import AnyPlan
from decant.pipeline.runs.result import Kind, Result
from decant.pipeline.runs.saved_recipe import changed_settings

_DECISIVE: dict[Kind, tuple[str, ...]] = {
    "teacher": ("data", "views", "teacher"),
    "labels": ("data", "views", "student"),
    "distilled": ("data", "views", "teacher", "knowledge", "cache", "student"),
}
_NOT_DECISIVE: dict[Kind, tuple[str, ...]] = {  # settings of those sections that change nothing
    "teacher": ("views.count",),
    "labels": ("student.objective",),
}
_OF_TEACHERS = ("teacher", "knowledge", "cache.dtype", "cache.encoding", "cache.precision")
"""Settings that are not used beside `cache.from`."""
_SETTINGS = {
    "encoding.dtype": "cache.dtype",
    "encoding.teacher_precision": "cache.precision",
    "encoding.kind": "cache.encoding",
    "encoding.head": "cache.encoding.head",
    "encoding.draws": "cache.encoding.draws",
    "encoding.seed": "cache.encoding.seed",
    "encoding.temperatures": "cache.encoding.temperatures",
}


@dataclass(frozen=True)
class Outdated:
    """A finished network or cache that other settings made."""

    path: Path
    changed: tuple[Difference, ...]
    """Expected is the recipe's value, found the one that it was made with; empty if the data or a file changed."""


def nearest_teacher(
    recipe: Recipe, position: int, results: Iterable[Result], current: Collection[Path]
) -> Outdated | None:
    """For the teacher at `position` of the recipe's teachers; `current` are the run folders of all of them."""
    others = [
        result.folder for result in results if result.kind == "teacher" and result.folder not in current
    ]
    return _nearest((folder, _changed_teacher(recipe, position, folder)) for folder in others)


def nearest_cache(plan: AnyPlan, position: int, results: Iterable[Result]) -> Outdated | None:
    """For the cache of the teacher at `position`: the nearest in the store whose teacher lies in the run folder."""
    candidates = []
    teachers = [result for result in results if result.kind == "teacher"]
    for path in plan.store.paths():
        try:
            identity = LogitCache.open(path, verify="off").manifest.identity
        except (CacheError, OSError):
            continue
        for teacher in teachers:
            if teacher.weights_sha256 == identity["teacher"].get("weights_sha256"):
                of_teacher = _changed_teacher(plan.recipe, position, teacher.folder)
                planned = plan.by_teacher[position].manifest_of(teacher).identity
                if plan.settings.data.of_tokens and planned["data"] != identity["data"]:
                    continue  # of another part, or of tokens that another teacher is for
                others = [
                    other._replace(field=_SETTINGS.get(other.field, other.field))
                    for other in differences(planned, identity, ("views", "encoding"))
                ]
                candidates.append((path, None if of_teacher is None else [*of_teacher, *others]))
    return _nearest(candidates)


def nearest_students(
    recipe: Recipe, kind: Kind, results: Iterable[Result], current: Path | None
) -> Outdated | None:
    """For the students of one kind; `current` is their folder, None if it is not known."""
    folders = {result.seeds_folder: result.folder for result in results if result.kind == kind}
    folders = {parent: folder for parent, folder in folders.items() if parent != current}
    unused = _OF_TEACHERS if recipe.settings.cache.from_ is not None else ()
    return _nearest((parent, _changed(recipe, folder, kind, unused)) for parent, folder in folders.items())


def _changed_teacher(recipe: Recipe, position: int, folder: Path) -> list[Difference] | None:
    """How the teacher of a folder differs from the one at `position`; None if another one of the recipe's teachers is
    nearer.
    """
    by_position = [_changed(each, folder, "teacher") for each in recipe.by_teacher]
    if any(changed is None for changed in by_position):
        return None
    fewest = min(len(changed or ()) for changed in by_position)
    changed = by_position[position] or []
    if len(changed) > fewest:
        return None
    if position == 0:
        return changed
    return [each._replace(field=each.field.replace("teacher.", "knowledge.", 1)) for each in changed]


def _changed(recipe: Recipe, folder: Path, kind: Kind, unused: Sequence[str] = ()) -> list[Difference] | None:
    """The settings that decide networks of this kind and differ; None if the folder has no readable recipe."""
    changed = changed_settings(recipe, folder, _DECISIVE[kind])
    if changed is None:
        return None
    return [each for each in changed if not each.field.startswith((*_NOT_DECISIVE.get(kind, ()), *unused))]


def _nearest(candidates: Iterable[tuple[Path, Sequence[Difference] | None]]) -> Outdated | None:
    """The one that differs in the fewest settings, each of which is listed once."""
    known = [
        Outdated(path, tuple({each.field: each for each in changed}.values()))
        for path, changed in candidates
        if changed is not None
    ]
    return min(known, key=lambda outdated: (len(outdated.changed), outdated.path), default=None)
