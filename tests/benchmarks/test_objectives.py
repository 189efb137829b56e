"""The comparison of objectives says what its figures say, and compares nothing but objectives."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.objectives import LABELS, Outcome, markdown, measure
from decant.pipeline.config.objectives import names_for
from decant.pipeline.runs.result import find_results


def test_the_table_ranks_and_names_best_and_worst_with_paired_differences() -> None:
    alone = Outcome(LABELS, "", (0.90, 0.92, 0.94))
    worst = Outcome("js", "alpha 0.9", (0.89, 0.92, 0.92))
    best = Outcome("kd", "alpha 0.9", (0.92, 0.95, 0.95))
    table = markdown([alone, worst, best])
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| kd", "| js", f"| {LABELS}"]
    assert "| 94.00 ± 1.73 | +2.00 (± 0.58) |" in rows[0]
    assert "| 91.00 ± 1.73 | -1.00 (± 0.58) |" in rows[1]
    assert "Best: kd, 94.00 ± 1.73 %, +2.00 (± 0.58) points. Worst: js" in table
    assert "Best against worst: +3.00 (± 0.00) points." in table


def test_every_objective_has_the_same_student_teacher_and_test_part(tmp_path: Path) -> None:
    small = ["teacher.network.width=2", "teacher.epochs=1", "student.epochs=1"]
    outcomes = measure(tmp_path, 1, small)
    assert [outcome.name for outcome in outcomes] == [LABELS, *names_for("classification")]
    found = list(find_results(tmp_path))
    teachers = [result for result in found if result.kind == "teacher"]
    assert {result.seed for result in teachers} == {0, 1}
    students = [result for result in found if result.kind == "distilled"]
    assert len([result for result in found if result.kind == "labels"]) == 1
    first = next(result.weights_sha256 for result in teachers if result.seed == 0)
    for result in students:
        name = (result.objective or {})["name"]
        assert result.teacher == (None if name == "general" else first), name
        (line,) = (result.folder / "metrics.jsonl").read_text().splitlines()
        assert "test" in json.loads(line)
    assert len({(str(r.network), r.seed, r.test_sha256, r.baseline) for r in students}) == 1
