"""What a cache is asked for: the same question gives the same key, any other question another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import Manifest
from decant.pipeline.config.recipe import load as load_recipe
from decant.pipeline.config.settings import Settings
from decant.pipeline.data import load
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases import plan
from decant.pipeline.runs.result import Result

AUGMENTED = ("views.count=3", 'views.augment=[{op="flip"}, {op="pad-crop", padding=2}]')


def settings(*overrides: str) -> Settings:
    return load_recipe("digits", overrides).settings


def teacher(weights: str = "ab" * 32, name: str = "conv", **args: Any) -> Result:
    spec = NetworkSpec(name, args or {"width": 32}, 10, (1, 8, 8), (0.3,), (0.4,))
    return Result("teacher", spec, 0, 100, 1000, weights, {}, "test", 1.0, folder=Path("anywhere"))


def manifest(*overrides: str, of: Result | None = None, data: ArrayData | None = None) -> Manifest:
    given = settings(*overrides)
    data = data or load(given.data, given.views, "train")  # type: ignore[assignment]
    assert data is not None
    return plan.of_cache(data, given.views, of or teacher(), given.cache)


def small(
    inputs: Any = 0, labels: Any = (0, 1, 2), classes: tuple[str, ...] = ("a", "b", "c"), **more: Any
) -> ArrayData:
    images = np.broadcast_to(np.uint8(inputs), (3, 1, 4, 4))
    return ArrayData(more.get("name", "mine"), more.get("split", "train"), images, np.array(labels), classes)


def test_the_sections_that_a_student_works_out_are_those_of_the_manifest() -> None:
    given = settings(*AUGMENTED)
    data = load(given.data, given.views, "train")
    found = manifest(*AUGMENTED).identity
    assert found["data"] == plan.of_data(data)
    assert found["views"] == plan.of_views(given.views, data)


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
