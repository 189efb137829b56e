"""What was made with other settings is found, and the settings are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decant.cache import Store
from decant.cache.exchange.logits import import_logits
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.phases.plan import Plan
from decant.pipeline.runs.result import RESULT, Result, find_results
from decant.pipeline.runs.saved_recipe import save_recipe
from decant.pipeline.status.outdated import Outdated, nearest_cache, nearest_students, nearest_teacher
from tests.helpers.small import VIEWS, build_cache, recipe, students, teach

KNOWLEDGE = ('knowledge.network={name="mlp", hidden=8, layers=1}', "knowledge.epochs=1", "knowledge.lr=0.02")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teacher, cache and students of the small recipe with two views, and a teacher of another rate."""
    folder = tmp_path_factory.mktemp("outdated")
    build_cache(folder, *VIEWS)
    students(folder, *VIEWS)
    teach(folder, "teacher.lr=0.5", "teacher.epochs=1")
    return folder


def all_results(base: Path) -> list[Result]:
    return list(find_results(base, skip_damaged=True))


def fields(found: Outdated | None) -> list[str] | None:
    return None if found is None else [str(one) for one in found.changed]


def teacher(folder: Path, *overrides: str, current: tuple[Path, ...] = ()) -> Outdated | None:
    return nearest_teacher(recipe(*overrides), 0, all_results(folder / "runs"), current)


def cache(folder: Path, *overrides: str, place: int = 0) -> Outdated | None:
    plan = Plan.of(recipe(*overrides), folder / "runs", Store(folder / "caches"))
    return nearest_cache(plan, place, all_results(folder / "runs"))


def test_of_several_teachers_the_one_that_differs_least_is_told(folder: Path) -> None:
    assert fields(teacher(folder, *VIEWS, "teacher.lr=0.25")) == ["teacher.lr: expected 0.25, found 0.003"]
    found = teacher(folder, "teacher.lr=0.25", "teacher.epochs=1")
    assert fields(found) == ["teacher.lr: expected 0.25, found 0.5"]
    assert found is not None
    assert fields(teacher(folder, "teacher.lr=0.25", "teacher.epochs=1", current=(found.path,))) == [
        "teacher.epochs: expected 1, found 3",
        "teacher.lr: expected 0.25, found 0.003",
        "views.augment.length: expected 0, found 1",
    ]


def test_what_decides_no_teacher_is_not_told(folder: Path) -> None:
    others = ("views.count=7", "teacher.evaluate_every=9", "student.lr=0.3", "cache.dtype=float32")
    assert fields(teacher(folder, *VIEWS, *others)) == []


def test_a_cache_of_another_teacher_encoding_or_number_of_views_is_told(folder: Path) -> None:
    assert fields(cache(folder, *VIEWS, "views.count=3", "cache.dtype=float32", "teacher.lr=0.25")) == [
        "teacher.lr: expected 0.25, found 0.003",
        "cache.dtype: expected 'float32', found 'float16'",
        "views.count: expected 3, found 2",
    ]
    assert fields(cache(folder, *VIEWS, "views.seed=5")) == ["views.seed: expected 5, found 0"], "once"
    assert fields(cache(folder, *VIEWS, "cache.batch_size=9", "student.lr=0.3")) == []


def test_a_cache_of_somebody_elses_is_not_of_this_run_folder(folder: Path, tmp_path: Path) -> None:
    logits = np.zeros((1437, 10), np.float32)
    import_logits(
        Store(tmp_path), logits, np.zeros(1437, np.int64), teacher={"name": "x"}, data={"name": "digits"}
    )
    (tmp_path / "broken.h5").write_bytes(b"")
    plan = Plan.of(recipe(), folder / "runs", Store(tmp_path))
    assert nearest_cache(plan, 0, all_results(folder / "runs")) is None


def test_of_students_what_they_learn_from_is_told_too(folder: Path) -> None:
    def told(kind: str, *overrides: str) -> list[str] | None:
        return fields(nearest_students(recipe(*VIEWS, *overrides), kind, all_results(folder / "runs"), None))  # type: ignore[arg-type]

    hot = "student.objective.temperature=2.0"
    assert told("distilled", hot, "teacher.lr=0.25", "cache.dtype=float32", "student.seeds=4") == [
        "cache.dtype: expected 'float32', found 'float16'",
        "student.objective.temperature: expected 2.0, found 4.0",
        "teacher.lr: expected 0.25, found 0.003",
    ]
    assert told("labels", hot, "teacher.lr=0.25", "cache.dtype=float32", "student.epochs=9") == [
        "student.epochs: expected 9, found 2"
    ]
    assert told("distilled", "cache.table=ram", "cache.batch_size=9") == []
    assert told("distilled", "cache.from=x.h5", "teacher.lr=0.25", "cache.dtype=float32") == [
        "cache.from: expected 'x.h5', found nothing"
    ]


def test_the_students_that_are_asked_for_are_not_others(folder: Path) -> None:
    results = all_results(folder / "runs")
    (own,) = {result.folder.parent for result in results if result.kind == "distilled"}
    assert nearest_students(recipe(*VIEWS), "distilled", results, own) is None
    assert nearest_students(recipe(*VIEWS), "distilled", results, own.with_name("other")) == Outdated(own, ())


def kept(folder: Path, one: Recipe, made: Path) -> Path:
    """A finished teacher of a recipe, otherwise as one that was made."""
    like = next(result for result in all_results(made / "runs") if result.kind == "teacher")
    save_recipe(folder, one)
    replace(like, folder=folder).save()
    return folder


def test_one_of_two_teachers_is_not_taken_for_an_older_other(folder: Path, tmp_path: Path) -> None:
    old, new = recipe(*KNOWLEDGE), recipe(*KNOWLEDGE, "knowledge.lr=0.5", "teacher.lr=0.25")
    made = [kept(tmp_path / f"teacher-{place}", one, folder) for place, one in enumerate(old.by_teacher)]
    results = all_results(tmp_path)
    found = [nearest_teacher(new, place, results, ()) for place in range(2)]
    assert [one and (one.path, fields(one)) for one in found] == [
        (made[0], ["teacher.lr: expected 0.25, found 0.003"]),
        (made[1], ["knowledge.lr: expected 0.5, found 0.02"]),
    ]
    assert nearest_teacher(new, 1, results[:1], ()) is None


def test_a_damaged_result_and_one_without_a_recipe_are_passed_over(folder: Path, tmp_path: Path) -> None:
    whole = kept(tmp_path / "a", recipe(), folder)
    (kept(tmp_path / "b", recipe(), folder) / "recipe.toml").unlink()
    (kept(tmp_path / "c", recipe(), folder) / RESULT).write_text("{")
    results = all_results(tmp_path)
    assert [result.folder.name for result in results] == ["a", "b"]
    assert nearest_teacher(recipe(), 0, results, ()) == Outdated(whole, ())
    assert nearest_teacher(recipe(), 0, results, (whole,)) is None
