"""The table says what the results say."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from small import CPU, build_cache, recipe

from cache import Store
from pipeline.errors import NotMadeError
from pipeline.report import Report, format_cells, gap_closed, latency_ms, make_report
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
    assert [(row.kind, len(row.top1)) for row in report.rows] == [
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
    teacher, alone = replace(teacher, top1=(0.90,)), replace(alone, top1=(0.70, 0.80, 0.75))
    (line,) = gap_closed([teacher, alone, replace(distilled, top1=(0.80, 0.84, 0.82))])
    assert "+7.00 points over labels only" in line
    assert "47 % of the gap to the teacher closed" in line
    paired = statistics.stdev([0.10, 0.04, 0.07]) / 3**0.5
    assert f"standard error {100 * paired:.2f}" in line


def test_nothing_is_compared_over_different_seeds(report: Report) -> None:
    teacher, alone, distilled = report.rows
    assert gap_closed([teacher, replace(alone, top1=alone.top1[:2]), distilled]) == []


def test_the_curves_are_a_picture(report: Report) -> None:
    with Image.open(report.curves) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert len(picture.getcolors(1 << 20) or []) > 20


def test_latency_is_positive_and_of_one_image(runs: Path) -> None:
    assert 0 < latency_ms(next(iter(results(runs))), repetitions=5) < 1000


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
    teacher, alone, distilled = (replace(row, top1=()) for row in report.rows)
    assert format_cells(teacher)[4] == "–"
    assert gap_closed([teacher, alone, distilled]) == []
