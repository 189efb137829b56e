"""The table says what the results say."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small import CPU, build_cache, recipe

from cache import Store
from pipeline.errors import NotMadeError
from pipeline.report import Report, compare, format_cells, gap_closed, learnt, make_report
from pipeline.runs import results
from pipeline.student import train_students

SEEDS = ("student.seeds=3",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    build_cache(folder, *SEEDS)
    list(train_students(recipe(*SEEDS), folder / "runs", Store(folder / "caches"), CPU))
    return folder / "runs"


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    return make_report(recipe(*SEEDS), runs)


def test_there_is_a_row_a_kind_with_its_seeds(report: Report) -> None:
    assert [(row.kind, len(row.values)) for row in report.rows] == [
        ("teacher", 1),
        ("labels", 3),
        ("kd (alpha 0.9, temperature 4)", 3),
    ]


def test_means_spreads_sizes_are_those_of_the_results(runs: Path, report: Report) -> None:
    top1 = [result.metrics["top1"] for result in results(runs) if result.kind == "distilled"]
    row = report.rows[2]
    assert row.mean == pytest.approx(statistics.fmean(top1))
    assert row.spread == pytest.approx(statistics.stdev(top1))
    assert row.weights_bytes == next(runs.glob("student-*-kd-*/seed-0/weights.safetensors")).stat().st_size
    text = report.table.read_text()
    assert f"{100 * statistics.fmean(top1):.2f} ± {100 * statistics.stdev(top1):.2f} % (n = 3)" in text


def test_the_share_of_the_gap_is_worked_out_from_the_three_means(report: Report) -> None:
    teacher, alone, distilled = (replace(row) for row in report.rows)
    teacher, alone = replace(teacher, values=(0.90,)), replace(alone, values=(0.70, 0.80, 0.75))
    (line,) = gap_closed([teacher, alone, replace(distilled, values=(0.80, 0.84, 0.82))])
    assert "+7.00 points over labels only" in line
    assert "47 % of the gap to the teacher closed" in line
    paired = statistics.stdev([0.10, 0.04, 0.07]) / 3**0.5
    assert f"standard error {100 * paired:.2f}" in line


def test_a_student_that_is_better_than_its_teacher_closes_no_share_of_a_gap(report: Report) -> None:
    teacher, alone, distilled = report.rows
    teacher, alone = replace(teacher, values=(0.81,)), replace(alone, values=(0.80, 0.80, 0.80))
    (line,) = gap_closed([teacher, alone, replace(distilled, values=(0.82, 0.84, 0.86))])
    assert line.endswith("and it passes the teacher")


def test_nothing_is_compared_over_different_seeds(report: Report) -> None:
    teacher, alone, distilled = report.rows
    assert gap_closed([teacher, replace(alone, values=alone.values[:2]), distilled]) == []


def test_the_curves_are_a_picture(report: Report) -> None:
    with Image.open(report.curves) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(picture.getcolors(1 << 20) or []) > 20


def test_latency_was_measured_with_the_network_and_older_runs_have_a_dash(report: Report) -> None:
    for row in report.rows:
        assert 0 < (row.latency_ms or 0) < 1000
        assert format_cells(row)[5] == f"{row.latency_ms:.3f}"
    assert format_cells(replace(report.rows[0], latency_ms=None))[5] == "–"
    assert f"Milliseconds: batch 1; {report.rows[0].first.latency_on}." in report.table.read_text()


def test_students_are_compared_with_the_teachers_that_they_learnt_from(tmp_path: Path) -> None:
    paths = [str(build_cache(tmp_path, f"teacher.seed={seed}").path) for seed in (0, 1, 2)]
    store = Store(tmp_path / "caches")
    two = recipe(f"cache.from={paths[:2]!r}")
    made = [result for result, _ in train_students(two, tmp_path / "runs", store, CPU)]
    rows = compare(two, tmp_path / "runs", made)
    assert [row.first.kind for row in rows] == ["teacher", "teacher", "labels", "distilled"]
    assert {row.first.weights_sha256 for row in rows[:2]} == set(made[1].teachers or ())
    alone = recipe(f"cache.from={paths[2]!r}")
    rows = compare(
        alone, tmp_path / "runs", [r for r, _ in train_students(alone, tmp_path / "runs", store, CPU)]
    )
    assert (rows[0].first.kind, rows[0].first.seed) == ("teacher", 2)
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"name": "kd", "alpha": 0.9, "standardize": True}, "kd (alpha 0.9, standardize true)"),
        (
            {"name": "kd", "temperature": {"from": 8.0, "to": 2.0, "schedule": "cosine"}},
            "kd (temperature 8 → 2 cosine)",
        ),
        ({"name": "kd", "alpha": {"from": 0.0, "to": 1.0, "schedule": "linear"}}, "kd (alpha 0 → 1)"),
        ({"name": "kd", "class_weights": [1.0, 2.5]}, "kd (class_weights [1, 2.5])"),
        ({"name": "general", "teacher_divergence": "ce"}, "general (teacher_divergence ce)"),
        ({"name": "own:loss", "table": {"a": 1}}, "own:loss (table {'a': 1})"),
        ({"name": "own:loss"}, "own:loss"),
    ],
)
def test_an_objective_is_worded_with_its_settings(
    report: Report, objective: dict[str, Any], said: str
) -> None:
    assert learnt(replace(report.rows[2].first, objective=objective)) == said


def test_with_nothing_finished_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match="run: decant teacher"):
        make_report(recipe(), tmp_path)


def test_seeds_that_were_measured_unlike_often_share_a_curve(tmp_path: Path) -> None:
    build_cache(tmp_path)
    store = Store(tmp_path / "caches")
    for words in (("student.evaluate_every=1",), ("student.evaluate_every=2", "student.seeds=2")):
        list(train_students(recipe(*words), tmp_path / "runs", store, CPU))
    assert make_report(recipe(), tmp_path / "runs").curves.exists()


def test_without_labels_a_row_has_a_dash_and_nothing_is_compared(report: Report) -> None:
    teacher, alone, distilled = (replace(row, values=()) for row in report.rows)
    assert format_cells(teacher)[4] == "–"
    assert gap_closed([teacher, alone, distilled]) == []
