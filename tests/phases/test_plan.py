"""What a recipe leads to: a key for every teacher, data, views and encoding, and the folders of what is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import Manifest, Store
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import Settings
from decant.pipeline.data import load_data
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.errors import NotMadeError
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases import datasets
from decant.pipeline.phases.fingerprints import cache_manifest, data_fingerprint, views_fingerprint
from decant.pipeline.phases.plan import Plan
from decant.pipeline.runs.result import Result
from tests.helpers.small import build_cache, recipe, students

AUGMENTED = ("views.count=3", 'views.augment=[{op="flip"}, {op="pad-crop", padding=2}]')


def settings(*overrides: str) -> Settings:
    return load_recipe("digits", overrides).settings


def teacher(weights: str = "ab" * 32, name: str = "conv", **args: Any) -> Result:
    spec = NetworkSpec(name, args or {"width": 32}, 10, (1, 8, 8), (0.3,), (0.4,))
    return Result("teacher", spec, 0, 100, 1000, weights, {}, "test", 1.0, folder=Path("anywhere"))


def manifest(*overrides: str, of: Result | None = None, data: ArrayData | None = None) -> Manifest:
    given = settings(*overrides)
    data = data or load_data(given.data, given.views, "train")  # type: ignore[assignment]
    assert data is not None
    return cache_manifest(data, given.views, of or teacher(), given.cache)


def small(
    inputs: Any = 0, labels: Any = (0, 1, 2), classes: tuple[str, ...] = ("a", "b", "c"), **more: Any
) -> ArrayData:
    images = np.broadcast_to(np.uint8(inputs), (3, 1, 4, 4))
    return ArrayData(more.get("name", "mine"), more.get("split", "train"), images, np.array(labels), classes)


def test_the_sections_that_a_student_works_out_are_those_of_the_manifest() -> None:
    given = settings(*AUGMENTED)
    data = load_data(given.data, given.views, "train")
    found = manifest(*AUGMENTED).identity
    assert found["data"] == data_fingerprint(data)
    assert found["views"] == views_fingerprint(given.views, data)


def test_the_manifest_survives_its_file() -> None:
    found = manifest(*AUGMENTED)
    again = Manifest.from_json(found.to_json())
    assert (again.identity, again.key) == (found.identity, found.key)


def test_the_sizes_are_those_of_data_teacher_and_views() -> None:
    found = manifest(*AUGMENTED)
    assert (found.num_samples, found.num_outputs, found.num_views) == (1437, 10, 3)


SAME = [
    ("cache.batch_size=7",),
    ("views.seed=5",),  # which decides nothing without augmentation
    ("views.size=8",),  # which the digits have
    ("views.size=8", "views.resize=8"),
    ("student.epochs=3",),
    ("teacher.evaluate_every=3",),
    ("data.root=/elsewhere",),
]
OTHER = [
    ("cache.dtype=float32",),
    ("cache.precision=bfloat16",),
    ("views.size=9",),
    ("views.size=9", "views.resize=12"),
    ('views.augment=[{op="flip"}]',),
    ('views.augment=[{op="flip"}]', "views.seed=1"),
    ('views.augment=[{op="flip"}]', "views.count=2"),
    ('views.augment=[{op="flip", p=0.4}]',),
    AUGMENTED,
    (AUGMENTED[0], 'views.augment=[{op="flip"}, {op="pad-crop", padding=3}]'),
    (AUGMENTED[0], 'views.augment=[{op="pad-crop", padding=2}, {op="flip"}]'),
]


@pytest.mark.parametrize("overrides", SAME)
def test_the_same_question_has_the_same_key(overrides: tuple[str, ...]) -> None:
    assert manifest(*overrides).identity == manifest().identity
    assert manifest(*overrides).key == manifest().key


def test_every_other_question_has_a_key_of_its_own() -> None:
    keys = {overrides: manifest(*overrides).key for overrides in [(), *OTHER]}
    assert len(set(keys.values())) == 1 + len(OTHER), keys


def test_every_other_teacher_or_data_have_a_key_of_their_own() -> None:
    found = [
        manifest(data=small()),
        manifest(data=small(), of=teacher("cd" * 32)),
        manifest(data=small(), of=teacher(width=33)),
        manifest(data=small(), of=teacher(name="conv2")),
        manifest(data=small(1)),
        manifest(data=small(labels=(0, 2, 1))),
        manifest(data=small(labels=(0, 1, -1))),
        manifest(data=small(classes=("a", "b", "d"))),
        manifest(data=small(classes=("b", "a", "c"))),
        manifest(data=small(name="yours")),
        manifest(data=small(split="test")),
    ]
    assert len({one.key for one in found}) == len(found)


def test_the_same_size_by_another_way_is_another_view() -> None:
    assert manifest("views.size=9").key == manifest("views.size=9", "views.resize=9").key
    assert manifest("views.size=9").key != manifest("views.size=9", "views.resize=10").key


def test_what_was_running_is_recorded_and_is_no_part_of_the_key() -> None:
    found = manifest("cache.batch_size=7")
    assert found.info["batch_size"] == 7
    assert set(found.info["versions"]) == {"torch", "torchvision", "numpy", "pillow"}
    assert "batch_size" not in str(found.identity)


def test_a_teacher_that_is_not_finished_is_not_found_but_named(tmp_path: Path) -> None:
    plan = Plan.of(recipe(), tmp_path)
    assert plan.load_teacher() is None
    with pytest.raises(NotMadeError, match="has not been trained with these settings on these data"):
        _ = plan.teacher
    plan.teacher_folder.mkdir(parents=True)
    with pytest.raises(NotMadeError, match="is not finished; run: decant teacher"):
        _ = plan.manifest


def test_a_plan_says_where_every_phase_puts_what_it_makes(tmp_path: Path) -> None:
    built = build_cache(tmp_path)
    made = students(tmp_path)
    plan = Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches"))
    assert plan.teacher.folder == plan.teacher_folder
    assert plan.find_cache() == built.path
    assert plan.manifest.key == built.manifest.key
    folders = [plan.student_folder("labels"), plan.student_folder("distilled", built.manifest.key)]
    assert [result.folder for result in made] == [folder / "seed-0" for folder in folders]
    assert list(plan.seeds) == [0]


def test_the_plans_of_two_teachers_share_the_data_and_nothing_of_the_teachers(tmp_path: Path) -> None:
    both = Plan.of(recipe("knowledge.network.name=linear", "knowledge.epochs=1"), tmp_path)
    first, second = both.by_teacher
    assert first.data is second.data is both.data
    assert first.teacher_folder == both.teacher_folder
    assert first.teacher_folder.name.startswith("teacher-conv-")
    assert second.teacher_folder.name.startswith("teacher-linear-")


def test_a_plan_reads_the_training_data_once_and_the_test_split_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(data: Any, views: Any, split: str, **how: Any) -> Any:
        read.append(split)
        return load_data(data, views, split, **how)

    monkeypatch.setattr(datasets, "load_data", counted)
    plan = Plan.of(recipe(), tmp_path)
    assert read == []
    assert plan.teacher_folder.parent == tmp_path
    assert plan.student_folder("labels").parent == tmp_path
    assert read == ["train"]
    assert plan.splits.student_train.data is plan.data.student_data
    assert plan.splits.teacher_train.data is plan.data.teacher_data
    assert read == ["train", "test"]
