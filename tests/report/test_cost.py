"""What the teacher's pass cost and what a live teacher would have."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from decant.cache import Ensemble
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.cost import SampleCost
from decant.pipeline.report.output import make_report
from decant.pipeline.report.sections import cost
from decant.pipeline.report.subject import Subject, of_recipe, of_runs
from decant.pipeline.runs.notes import Pass, remember_pass
from tests.helpers.small import CPU
from tests.helpers.subjects import OWN, VIEWS, ensemble, forget, made, records, separate

EACH = SampleCost(loading=0.5, computing=2.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that takes two seconds for a sample, and half a second to read it."""
    monkeypatch.setattr(cost, "time_teacher", lambda *given: EACH)


def note(subject: Subject, seconds: float, rows: int, taken_over: int = 0) -> None:
    remember_pass(subject.base, subject.cache.manifest.key, Pass(seconds, rows, taken_over, "abacus"))


@pytest.mark.usefixtures("clock")
def test_a_pass_that_was_noted_is_what_the_cache_cost(subject: Subject) -> None:
    note(subject, 100.0, 72)
    found = cost.teaching(subject)
    assert found.pass_seconds == 100
    assert found.how_known == "as recorded when the cache was made"
    assert (found.epoch_seconds, found.epochs, found.students) == (36 * 2.0, 2, 2)
    assert found.live_seconds == 144
    assert found.pays_after == 1


@pytest.mark.usefixtures("clock")
def test_of_a_pass_that_went_on_with_another_s_work_the_rest_is_worked_out(subject: Subject) -> None:
    note(subject, 100.0, 18, taken_over=1)
    found = cost.teaching(subject)
    assert found.pass_seconds == 400
    assert found.how_known == "by the rows whose time was recorded: others were there already"


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("rows", [None, 0])
def test_a_pass_that_nobody_noted_is_estimated(subject: Subject, rows: int | None) -> None:
    forget(subject)
    if rows is not None:
        note(subject, 1.0, rows)
    found = cost.teaching(subject)
    assert found.pass_seconds == 72 * 2.5
    assert "a few batches" in found.how_known
    assert found.pays_after == 2, "180 seconds against 144 a student"


@pytest.mark.usefixtures("clock")
def test_workers_share_the_reading_as_in_the_pass(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(subject)
    monkeypatch.setattr(cost, "default_workers", lambda lazy: 5)
    assert cost.teaching(subject).pass_seconds == pytest.approx(72 * (0.1 + 2.0))


@pytest.mark.usefixtures("clock")
def test_what_was_saved_is_counted_over_each_student_s_own_epochs(tmp_path: Path) -> None:
    made(tmp_path, *OWN, "student.seeds=2")
    subject = made(tmp_path, *OWN, "student.epochs=5")
    note(subject, 100.0, 36)
    found = cost.teaching(subject)
    assert (found.epochs, found.students, found.epochs_learnt) == (5, 3, 2 + 2 + 5)
    section = cost.cost(subject)
    assert "over the 3 students of this page it saved 9.1 min" in section.content["answer"]  # 9 · 72 − 100 s
    lines = {(one["series"], one["x"]): one["y"] for one in records(section, "teaching")}
    assert lines["a live teacher", 3] == 3 * 5 * 72
    assert lines["with the cache", 3] == 100
    assert "for each student of 5 epochs" in section.content["answer"]
    assert "for each student of one epoch," in cost._answer(replace(found, epochs=1), "abacus")


def test_the_phases_are_those_of_the_results(subject: Subject) -> None:
    (teacher, passed, alone, student) = cost.cost(subject).content["phases"]
    assert [row[1] for row in (teacher, passed, alone, student)] == ["1", "1", "2", "2"]
    assert passed[0] == "teacher's pass, into the cache"
    taken = sum(result.seconds for result in subject.results if result.kind == "distilled")
    assert student[3] == cost.seconds(taken)


def test_without_the_teacher_beside_it_a_given_cache_says_so(subject: Subject, tmp_path: Path) -> None:
    given = made(tmp_path, *OWN, *VIEWS, f"cache.from={str(subject.cache.path)!r}")
    assert [result.kind for result in given.results] == ["labels", "distilled"]
    section = cost.cost(given)
    assert f"the teacher whose logits {subject.cache.path} holds is not here" in section.content["problem"]
    assert len(section.content["phases"]) == 2
    report = make_report(given, tmp_path / "out")
    assert report.missing == ()
    assert "What a live teacher would cost is not known" in report.page.read_text("utf-8")


@pytest.mark.usefixtures("clock")
def test_one_teacher_that_lies_there_twice_is_one(subject: Subject, tmp_path: Path) -> None:
    other = shutil.copytree(subject.base, tmp_path / "runs")
    both = of_runs([subject.base, other], subject.store, CPU)
    assert [result.kind for result in both.results].count("teacher") == 2
    assert cost.teaching(both).epoch_seconds == 72


@pytest.mark.usefixtures("clock")
def test_two_teachers_make_two_passes_and_both_would_be_asked_live(tmp_path: Path) -> None:
    subject = separate(tmp_path)
    assert [teacher.network.name for teacher in subject.teachers] == ["mlp", "linear"], "in their order"
    assert isinstance(subject.cache, Ensemble)
    for member, seconds in zip(subject.cache.caches, (30.0, 12.0), strict=True):
        remember_pass(subject.base, member.manifest.key, Pass(seconds, 36, 0, "abacus"))
    found = cost.teaching(subject)
    assert (found.pass_seconds, found.epoch_seconds) == (42, 36 * 2 * 2)
    phases = cost.cost(subject).content["phases"]
    assert phases[2] == ("teacher's pass, into the cache", "2", "21 s", "42 s")


def test_of_two_teachers_of_which_one_is_gone_the_cost_is_not_known(tmp_path: Path) -> None:
    subject = ensemble(tmp_path)
    assert cost.teaching(subject).pass_seconds > 0
    assert isinstance(subject.cache, Ensemble)
    shutil.rmtree(subject.teachers[1].folder)
    alone = of_recipe(subject.focus.recipe, subject.base, subject.store, CPU)
    with pytest.raises(NotMadeError, match=f"{subject.cache.caches[1].path} holds is not here"):
        cost.teaching(alone)
