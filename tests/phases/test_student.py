"""Phase two: a fair comparison, the right cache or none, and no teacher anywhere near."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from decant.cache import CacheError, CorruptError, SoftLabelDataset, Store
from decant.cache.io import usage
from decant.pipeline.networks.build import specify_network
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.job import MeasuredOn, load_result_on
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.soft_labels import open_cache
from decant.pipeline.phases.student import jobs_for_seed, train_students
from decant.pipeline.runs.result import RESULT, WEIGHTS, Result, find_results
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers.small import CPU, VIEWS, build_cache, recipe, students, teach


def weights(result: Result) -> dict[str, Tensor]:
    return load_network(result).state_dict()


def test_with_no_weight_on_the_teacher_a_distilled_student_is_the_labels_only_one_bit_for_bit(
    tmp_path: Path,
) -> None:
    """Both share network, initialisation, order, views and schedule: only the loss may tell them apart."""
    build_cache(tmp_path, *VIEWS)
    alone, distilled = students(tmp_path, *VIEWS, "student.objective.alpha=0.0")
    assert (alone.kind, distilled.kind) == ("labels", "distilled")
    assert alone.weights_sha256 == distilled.weights_sha256


def test_with_weight_on_the_teacher_it_is_not(tmp_path: Path) -> None:
    build_cache(tmp_path)
    alone, distilled = students(tmp_path)
    assert alone.weights_sha256 != distilled.weights_sha256
    assert distilled.baseline == alone.folder.parent.name


def test_a_teacher_that_cannot_be_loaded_does_not_disturb_phase_two(tmp_path: Path) -> None:
    build_cache(tmp_path)
    (teach(tmp_path).folder / WEIGHTS).write_bytes(b"whoever reads this fails")
    assert len(students(tmp_path)) == 2


def test_agreement_with_the_teacher_is_known_though_it_is_not_loaded(tmp_path: Path) -> None:
    build_cache(tmp_path)
    distilled = students(tmp_path)[1]
    teacher = load_network(teach(tmp_path)).eval()
    student = load_network(distilled).eval()
    test = Splits.load(recipe().settings).test
    inputs = torch.from_numpy(test.data.raw(np.arange(len(test))))
    with torch.inference_mode():
        expected = float((student(inputs).argmax(1) == teacher(inputs).argmax(1)).double().mean())
    assert distilled.metrics["agreement"] == pytest.approx(expected, abs=1.5 / len(test))


def test_with_a_teacher_of_another_test_part_there_is_no_agreement_until_it_is_measured_on_this_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_cache(tmp_path)
    result = teach(tmp_path).folder / RESULT
    on_this = result.read_text()
    result.write_text(on_this.replace('"test_sha256": "', '"test_sha256": "of another part '))
    forget_what_was_said()
    assert "agreement" not in students(tmp_path)[1].metrics
    said = f"{result.parent}: was measured on another test part, so students are not compared with it; measure it on "
    assert said + "this one: decant teacher" in capfd.readouterr().err
    result.write_text(on_this)
    with monkeypatch.context() as of_another:
        of_another.setattr(os, "access", lambda *_: False)
        assert "agreement" not in students(tmp_path)[1].metrics, "another person's run is used as it is"
    assert "agreement" in students(tmp_path)[1].metrics


def test_what_is_finished_is_found_and_left_alone(tmp_path: Path) -> None:
    build_cache(tmp_path)
    first = students(tmp_path)
    before = {result.folder: (result.folder / WEIGHTS).stat().st_mtime_ns for result in first}
    again = list(train_students(Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches")), CPU))
    assert [found for _, found in again] == [True, True]
    assert {result.folder: (result.folder / WEIGHTS).stat().st_mtime_ns for result, _ in again} == before


def test_what_is_found_by_other_settings_of_the_same_data_is_reported_by_them(tmp_path: Path) -> None:
    """A report had no finished network of images that were moved, or where another test part was measured on."""
    build_cache(tmp_path)
    made, moved = {result.folder for result in students(tmp_path)}, "data.root=elsewhere"
    data = recipe(moved).settings.data
    assert not list(find_results(tmp_path / "runs", data))
    found = train_students(Plan.of(recipe(moved), tmp_path / "runs", Store(tmp_path / "caches")), CPU)
    assert {result.folder for result, was_finished in found if was_finished} == made
    assert {result.folder for result in find_results(tmp_path / "runs", data)} == made


def test_what_is_found_and_not_measured_on_the_test_part_keeps_its_settings_of_data(tmp_path: Path) -> None:
    """As by a sweep of another test part: a report of that would show the metrics of the first one."""
    build_cache(tmp_path)
    data = recipe("data.root=elsewhere")
    for made in students(tmp_path):
        assert load_result_on(made.folder, MeasuredOn(None), CPU, data) == made
    assert not list(find_results(tmp_path / "runs", data.settings.data))


def test_changed_settings_make_other_students_and_keep_the_first(tmp_path: Path) -> None:
    build_cache(tmp_path)
    first = students(tmp_path)
    hotter = students(tmp_path, "student.objective.temperature=2.0")
    assert hotter[0].folder == first[0].folder  # labels only: the temperature is nothing to it
    assert hotter[1].folder != first[1].folder
    assert (first[1].folder / WEIGHTS).exists()


def test_more_seeds_add_to_those_that_are_there(tmp_path: Path) -> None:
    build_cache(tmp_path)
    students(tmp_path)
    made = list(
        train_students(Plan.of(recipe("student.seeds=2"), tmp_path / "runs", Store(tmp_path / "caches")), CPU)
    )
    assert [(result.seed, found) for result, found in made] == [(0, True), (0, True), (1, False), (1, False)]


def test_without_a_baseline_only_distilled_students_are_made(tmp_path: Path) -> None:
    build_cache(tmp_path)
    assert [result.kind for result in students(tmp_path, "student.baseline=false")] == ["distilled"]


def test_each_run_counts_as_a_use_of_its_cache(tmp_path: Path) -> None:
    cache = build_cache(tmp_path)
    students(tmp_path)
    students(tmp_path)
    assert usage.count(cache.path) == 2


def test_a_damaged_cache_is_found_in_training_at_the_latest(tmp_path: Path) -> None:
    cache = build_cache(tmp_path)
    path, place = cache.path, cache.path.stat().st_size // 2
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError) as raised:
        students(tmp_path)
    assert isinstance(raised.value, CorruptError), raised.value


def test_agreement_is_never_with_a_teacher_that_it_did_not_learn_from(tmp_path: Path) -> None:
    other = build_cache(tmp_path, "teacher.seed=1").path
    teach(tmp_path)
    alone, distilled = students(tmp_path, f"cache.from={str(other)!r}")
    assert "agreement" not in distilled.metrics
    assert "agreement" not in alone.metrics, "a baseline serves many teachers"


def test_without_any_label_there_is_no_baseline(tmp_path: Path) -> None:
    build_cache(tmp_path)
    plan = Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches"))
    cache, train = open_cache(plan), plan.splits.student_train
    train.data.labels[:] = -1
    spec = specify_network(recipe().settings.student.network, train)
    jobs = jobs_for_seed(plan, cache, spec, SoftLabelDataset(train, cache), 0)
    assert [job.kind for job in jobs] == ["distilled"]


def test_each_epoch_reads_the_next_view_and_then_the_first_again(tmp_path: Path) -> None:
    """Seen by damage in the second view alone: one epoch never meets it, two do."""
    cache = build_cache(tmp_path, *VIEWS)
    table = cache.num_samples * cache.num_outputs * cache.manifest.dtype.itemsize
    content = bytearray(cache.path.read_bytes())
    header = int.from_bytes(content[-40:-32], "little")
    content[header + table + table // 2] ^= 1  # in the middle of view 1
    cache.path.chmod(0o644)
    cache.path.write_bytes(content)
    one_epoch = ("student.epochs=1", "student.baseline=false")
    assert [result.kind for result in students(tmp_path, *VIEWS, *one_epoch)] == ["distilled"]
    with pytest.raises(CorruptError, match="view 1, block 0"):
        students(tmp_path, *VIEWS, "student.epochs=2", "student.baseline=false")


# Several teachers
