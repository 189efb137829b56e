"""What a student learns from: the right caches or none, together where there are several, from wherever."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import Ensemble, LogitCacheWriter, Manifest, MismatchError, Store
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.data.samples import LabelledData
from decant.pipeline.errors import NotMadeError, RecipeError
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.fingerprints import data_fingerprint, views_fingerprint
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.soft_labels import open_cache
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.phases.training_dataset import training_dataset
from tests.helpers.small import CPU, VIEWS, build_cache, plan, recipe, students, teach


def test_a_cache_that_is_not_there_is_not_built_but_the_command_is_named(tmp_path: Path) -> None:
    teach(tmp_path)
    with pytest.raises(NotMadeError, match="run: decant cache-logits"):
        students(tmp_path)


def test_the_nearest_cache_is_shown_with_what_differs(tmp_path: Path) -> None:
    near = build_cache(tmp_path).path
    build_cache(tmp_path, "teacher.seed=1")  # which differs in its teacher too
    with pytest.raises(NotMadeError, match=r"encoding\.dtype: expected 'float32', found 'float16'") as caught:
        students(tmp_path, 'cache.dtype="float32"')
    assert f"The nearest there, {near}, differs in:" in str(caught.value)


def test_a_cache_given_by_its_path_needs_no_teacher(tmp_path: Path) -> None:
    path = build_cache(tmp_path).path
    shutil.rmtree(tmp_path / "runs")
    made = students(tmp_path, f"cache.from={str(path)!r}")
    assert [result.kind for result in made] == ["labels", "distilled"]
    assert "agreement" not in made[1].metrics


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("views.size=12", r"views\.shape\[1\]: expected 12, found 8"),
        ("views.seed=3", r"views\.seed: expected 3, found 0"),
        ("views.count=3", r"views\.count: expected 3, found 2"),
        ('views.augment=[{op="pad-crop", padding=2}]', r"views\.augment\[0\]\.padding: expected 2, found 1"),
    ],
)
def test_a_cache_of_other_views_is_refused_naming_the_field(
    tmp_path: Path, override: str, field: str
) -> None:
    path = build_cache(tmp_path, *VIEWS).path
    with pytest.raises(MismatchError, match=field):
        students(tmp_path, *VIEWS, f"cache.from={str(path)!r}", override)


def test_several_teachers_teach_together(tmp_path: Path) -> None:
    paths = [str(build_cache(tmp_path, f"teacher.seed={seed}").path) for seed in (0, 1)]
    together = students(tmp_path, f"cache.from={paths!r}")[1]
    by_logits = students(tmp_path, f"cache.from={paths!r}", "cache.ensemble=logits")[1]
    alone = students(tmp_path, f"cache.from={paths[0]!r}")[1]
    assert len({result.weights_sha256 for result in (together, by_logits, alone)}) == 3
    assert len({result.folder for result in (together, by_logits, alone)}) == 3


def opened(folder: Path, *overrides: str) -> Ensemble:
    chosen = recipe(*overrides)
    cache = open_cache(Plan.of(chosen, folder / "runs", Store(folder / "caches")))
    assert isinstance(cache, Ensemble)
    return cache


def two_caches(folder: Path) -> str:
    return str([str(build_cache(folder, f"teacher.seed={seed}").path) for seed in (0, 1)])


def test_weights_go_to_the_mean_of_the_given_caches(tmp_path: Path) -> None:
    two = f"cache.from={two_caches(tmp_path)}"
    found = opened(tmp_path, two, "cache.ensemble=logits", "cache.weights=[7, 3]")
    one, other = (cache.logits([5]).astype(np.float64) for cache in found.caches)
    np.testing.assert_allclose(found.logits([5]), 0.7 * one + 0.3 * other, rtol=1e-5)
    by_softmaxes = opened(tmp_path, two, "cache.weights=[7, 3]", "student.objective.temperature=2.0")
    assert (by_softmaxes.mean, by_softmaxes.temperature) == ("probabilities", 2.0)
    assert by_softmaxes.weights == found.weights == pytest.approx((0.7, 0.3))


def test_a_second_teacher_has_a_cache_of_its_own_and_comes_second(tmp_path: Path) -> None:
    second = ("knowledge.network.name=linear", "knowledge.epochs=2")
    with pytest.raises(NotMadeError, match=r"run: decant teacher .*; or .*: --set cache\.from=FILE"):
        opened(tmp_path, *second)
    for each in plan(tmp_path, *second).by_teacher:
        make_teacher(each, CPU)
        cache_logits(each, CPU, print)
    found = opened(tmp_path, *second)
    names = [cache.manifest.identity["teacher"]["network"]["name"] for cache in found.caches]
    assert (names, found.mean) == (["conv", "linear"], "probabilities")
    assert found.caches[0].path == open_alone(tmp_path)


def open_alone(folder: Path) -> Path:
    alone = recipe()
    return open_cache(Plan.of(alone, folder / "runs", Store(folder / "caches"))).path


def test_caches_stay_apart_for_an_objective_that_tells_them_apart(tmp_path: Path) -> None:
    two = f"cache.from={two_caches(tmp_path)}"
    found = opened(tmp_path, two, "student.objective=general")
    assert found.logits([4, 2]).shape == (2, 2, 10)
    _, distilled = students(tmp_path, two, "student.objective=general")
    assert distilled.teacher is None
    assert len(set(distilled.teachers or ())) == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["cache.weights=[1, 1]"], "cache.weights: one for each of several teachers, of which there are 1"),
        (['cache.from="a.h5"', "cache.weights=[1]"], "cache.weights: one for each of several teachers"),
        (['cache.from=["a.h5", "b.h5"]', "cache.weights=[1]"], "of which there are 2, found 1"),
        (
            ['cache.from=["a.h5", "b.h5"]', "cache.weights=[0, 0]"],
            "cache.weights: at least one must be above 0",
        ),
        (
            ['cache.from=["a.h5", "b.h5"]', "cache.weights=[1, -1]"],
            r"cache.weights\[1\]: expected a number at least 0",
        ),
        (["student.objective=general"], "general learns from two teachers, found 1; give a section"),
        (
            ['cache.from=["a.h5", "b.h5", "c.h5"]', "student.objective=general"],
            "general learns from two teachers, found 3",
        ),
        (
            ['cache.from=["a.h5", "b.h5"]', "student.objective=general", "cache.weights=[1, 1]"],
            "cache.weights: nothing is averaged for this objective; set its alpha and beta",
        ),
    ],
)
def test_teachers_that_do_not_go_together_are_refused_before_anything_is_made(
    overrides: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(*overrides)


def outputs_of(folder: Path, name: str, scale: float) -> str:
    """A cache of a regression, filled by hand."""
    settings = load_recipe("regression").settings
    data = Splits.load(settings).student_train.data
    manifest = Manifest.build(
        num_samples=len(data),
        num_outputs=1,
        num_targets=1,
        teacher={"network": name},
        data={
            key: value for key, value in data_fingerprint(data).items() if key not in ("length", "targets")
        },
        views=views_fingerprint(settings.views, data),
    )
    with LogitCacheWriter(folder / f"{name}.h5", manifest) as writer:
        rows = np.arange(len(data))
        writer.write(rows, scale * np.ones((len(data), 1), np.float32), labels=data.labels)
        return str(writer.publish())


def test_outputs_of_a_regression_are_averaged_as_they_are(tmp_path: Path) -> None:
    two = [outputs_of(tmp_path, name, scale) for name, scale in (("one", 3.0), ("other", 7.0))]
    chosen = load_recipe("regression", [f"cache.from={two!r}", "cache.weights=[3, 1]"])
    cache = open_cache(Plan.of(chosen, tmp_path, Store(tmp_path)))
    np.testing.assert_allclose(cache.logits([0, 1]), 4.0)


@pytest.mark.parametrize("options", [VIEWS, ("views.count=all", VIEWS[1])])
def test_wherever_the_table_lies_the_student_is_the_same(tmp_path: Path, options: tuple[str, ...]) -> None:
    build_cache(tmp_path, *options)
    made = {}
    for table in ("auto", "mapped", "ram", "device"):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        teach(tmp_path, *options)
        again = students(
            tmp_path, *options, f"cache.table={table}", "student.baseline=false", check_inputs="sample"
        )
        made[table] = again[0].weights_sha256
    assert len(set(made.values())) == 1, made


class FilesOf:
    """Data that are read as they are asked for."""

    lazy = True

    def __init__(self, whole: LabelledData) -> None:
        self.whole = whole

    def __len__(self) -> int:
        return len(self.whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)


def test_files_cannot_be_moved_to_the_device_whole(tmp_path: Path) -> None:
    build_cache(tmp_path)
    planned = plan(tmp_path, "cache.table=device")
    cache, train = open_cache(planned), planned.splits.student_train
    train.data = FilesOf(train.data)
    with pytest.raises(RecipeError, match=r'cache\.table: "device" holds inputs that are one array'):
        training_dataset(planned, cache, "sample", CPU)
