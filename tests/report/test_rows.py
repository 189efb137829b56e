"""The table says what the results say, and a gain is over the student that differs in nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decant.cache import Store
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.report import Row, compare, format_cells, gains, learnt, rows_of
from decant.pipeline.report.rows import descriptions, markdown_table
from decant.pipeline.runs.result import find_results
from tests.helpers.small import CPU, build_cache, recipe

SEEDS = ("student.seeds=3",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    build_cache(folder, *SEEDS)
    list(train_students(Plan.of(recipe(*SEEDS), folder / "runs", Store(folder / "caches")), CPU))
    return folder / "runs"


@pytest.fixture(scope="module")
def rows(runs: Path) -> tuple[Row, ...]:
    return rows_of(find_results(runs))


def with_values(row: Row, values: Sequence[float]) -> Row:
    """A row whose seeds 0, 1, … have these figures."""
    found = [
        replace(row.first, seed=seed, metrics={**row.first.metrics, "top1": value})
        for seed, value in enumerate(values)
    ]
    return replace(row, results=tuple(found))


def test_there_is_a_row_a_kind_with_its_seeds(rows: tuple[Row, ...]) -> None:
    assert [(row.kind, len(row.values)) for row in rows] == [
        ("teacher", 1),
        ("labels", 3),
        ("kd (alpha 0.9, temperature 4)", 3),
    ]


def test_means_spreads_and_sizes_are_those_of_the_results(runs: Path, rows: tuple[Row, ...]) -> None:
    top1 = [result.metrics["top1"] for result in find_results(runs) if result.kind == "distilled"]
    row = rows[2]
    assert row.mean == pytest.approx(statistics.fmean(top1))
    assert row.spread == pytest.approx(statistics.stdev(top1))
    assert (
        row.first.weights_bytes == next(runs.glob("student-*-kd-*/seed-0/weights.safetensors")).stat().st_size
    )
    text = markdown_table("digits", rows)
    assert f"{100 * statistics.fmean(top1):.2f} ± {100 * statistics.stdev(top1):.2f} % (n = 3)" in text
    assert f"Milliseconds: batch 1; {rows[0].first.latency_on}." in text


def test_the_share_of_the_gap_is_worked_out_from_the_three_means(rows: tuple[Row, ...]) -> None:
    teacher, alone = with_values(rows[0], [0.90]), with_values(rows[1], [0.70, 0.80, 0.75])
    (gain,) = gains([teacher, alone, with_values(rows[2], [0.80, 0.84, 0.82])])
    assert "+7.00 points over labels only" in str(gain)
    assert "47 % of the gap to the teacher closed" in str(gain)
    paired = statistics.stdev([0.10, 0.04, 0.07]) / 3**0.5
    assert f"standard error {100 * paired:.2f}" in str(gain)
    assert gain.share == pytest.approx(7 / 15)


def test_a_student_that_is_better_than_its_teacher_closes_no_share_of_a_gap(rows: tuple[Row, ...]) -> None:
    teacher, alone = with_values(rows[0], [0.81]), with_values(rows[1], [0.80, 0.80, 0.80])
    (gain,) = gains([teacher, alone, with_values(rows[2], [0.82, 0.84, 0.86])])
    assert str(gain).endswith("and it passes the teacher")


def test_a_student_that_is_worse_than_labels_alone_is_said_to_be_below(rows: tuple[Row, ...]) -> None:
    teacher, alone = with_values(rows[0], [0.90]), with_values(rows[1], [0.80, 0.80, 0.80])
    (gain,) = gains([teacher, alone, with_values(rows[2], [0.70, 0.72, 0.74])])
    assert ": 8.00 points below labels only (standard error " in str(gain)
    assert "gap" not in str(gain)
    assert gain.share is None


def test_a_seed_that_diverged_is_counted_and_not_averaged(rows: tuple[Row, ...]) -> None:
    row = with_values(rows[2], [0.80, math.nan, 0.82])
    assert row.figure_text == "81.00 ± 1.41 % (n = 2 of 3)"
    assert row.by_seed == {0: 0.80, 2: 0.82}


def test_a_student_of_fewer_seeds_is_compared_on_its_own_ones(rows: tuple[Row, ...]) -> None:
    teacher, alone = with_values(rows[0], [0.90]), with_values(rows[1], [0.70, 0.80, 0.10])
    (gain,) = gains([teacher, alone, with_values(rows[2], [0.75, 0.87])])
    assert gain.mean == pytest.approx(0.06)
    assert gain.share == pytest.approx(0.06 / 0.15)


def test_nothing_is_compared_with_seeds_that_the_other_lacks(rows: tuple[Row, ...]) -> None:
    teacher, alone, distilled = rows
    assert gains([teacher, replace(alone, results=alone.results[:2]), distilled]) == []


def test_latency_was_measured_with_the_network_and_older_runs_have_a_dash(rows: tuple[Row, ...]) -> None:
    for row in rows:
        assert 0 < (row.first.latency_ms or 0) < 1000
        assert format_cells(row)[5] == f"{row.first.latency_ms:.3f}"
    old = replace(rows[0], results=(replace(rows[0].first, latency_ms=None),))
    assert format_cells(old)[5] == "–"


def test_students_are_compared_with_the_teachers_that_they_learnt_from(tmp_path: Path) -> None:
    paths = [str(build_cache(tmp_path, f"teacher.seed={seed}").path) for seed in (0, 1, 2)]
    store = Store(tmp_path / "caches")
    two = recipe(f"cache.from={paths[:2]!r}")
    made = [result for result, _ in train_students(Plan.of(two, tmp_path / "runs", store), CPU)]
    rows = compare(tmp_path / "runs", made)
    assert [row.first.kind for row in rows] == ["teacher", "teacher", "labels", "distilled"]
    assert {row.first.weights_sha256 for row in rows[:2]} == set(made[1].teachers or ())
    alone = recipe(f"cache.from={paths[2]!r}")
    rows = compare(
        tmp_path / "runs",
        [r for r, _ in train_students(Plan.of(alone, tmp_path / "runs", store), CPU)],
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
    rows: tuple[Row, ...], objective: dict[str, Any], said: str
) -> None:
    assert learnt(replace(rows[2].first, objective=objective)) == said


def test_without_labels_a_row_has_a_dash_and_nothing_is_compared(rows: tuple[Row, ...]) -> None:
    unknown = [
        replace(row, results=tuple(replace(result, metrics={"agreement": 1.0}) for result in row.results))
        for row in rows
    ]
    assert format_cells(unknown[0])[4] == "–"
    assert gains(unknown) == []


def test_a_language_model_of_many_settings_has_a_short_name_and_its_settings_once(
    rows: tuple[Row, ...],
) -> None:
    sizes = {"hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    network = replace(rows[0].first.network, name="llama", args={**sizes, "causal": sizes})
    of_text = [replace(row, results=(replace(row.first, network=network),)) for row in rows]
    table = markdown_table("lm", of_text)
    assert table.count("| llama (1 layer of 96) |") == 3, table
    assert table.count("hidden_size=96 num_hidden_layers=1 num_attention_heads=4") == 1
    few = replace(network, args={"hidden_size": 96, "causal": sizes})
    assert few.short == str(few) == "llama hidden_size=96"
    assert descriptions(rows) == [], "networks of images are named by their arguments"
